"""Which tokens of an answer are its own, in every format: what information gain counts."""

from __future__ import annotations

import pytest

from agentrft.train.reference_answers import ReferenceAnswers
from agentrft.types import Item, Message


@pytest.mark.parametrize("text", ["8080", "billing in staging", "ø — 日本", "42.5", "a\nb"])
def test_they_spell_the_answer_and_nothing_else(fmt, tools, text: str) -> None:
    item = Item(id="row-1", messages=(), fields={"port": text})

    def reply(item: Item, text: str) -> list[int]:
        return fmt.reply(Message(role="assistant", content=text), tools)

    said = ReferenceAnswers.of([item], "port", reply, 4096).said["row-1"]
    whole = reply(item, text)
    assert list(said.ids) == whole[: len(said.ids)]  # what the model would write, token for token
    assert fmt.tokenizer.decode(said.ids[said.start :]).strip() == text
    assert not set(said.ids[said.start :]) & set(fmt.stop_ids)
