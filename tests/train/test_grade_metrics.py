"""What grades hide: numbers that judges gave outside their range, stand-ins for missing ones, tokens of judges."""

import pytest

from agentrft.credit import PenaltiesSpec
from agentrft.rollout import Seat
from agentrft.train.metrics import rollout_metrics
from agentrft.train.played import Crediting
from agentrft.types import Episode, Grade, Group, Item, StopReason, TokenUsage

HIDDEN = {"clipped_frac", "substituted_frac", "judge_tokens"}


def metrics(*grades: Grade) -> dict[str, float]:
    episodes = tuple(
        Episode(
            id=f"ep_{n}", trace_id="t", item_id="i", step=0, member=n, attempt=0, messages=(), turns=(),
            stop_reason=StopReason.ANSWERED,
        )
        for n in range(len(grades))
    )  # fmt: skip
    group = Group(item=Item(id="i", messages=()), episodes=episodes, grades=grades)
    played = Crediting().played(Seat(index=0, item=group.item), group, PenaltiesSpec())
    found = rollout_metrics([played], 1.0, 0.5)
    return {name: value for name, value in found.items() if name in HIDDEN}


def test_judges_count_their_tokens_and_what_was_clipped():
    used = {"m": TokenUsage(prompt_tokens=90, completion_tokens=10), "n": TokenUsage(completion_tokens=5)}
    none = Grade(value=None, reason="unreadable", token_usage={"m": TokenUsage(prompt_tokens=40)})
    clipped = Grade(value=1.0, clipped={"style": 11.0}, token_usage=used)
    uncounted = Grade(value=1.0, clipped={"style": 12.0})  # its server counts no tokens
    plain = Grade(value=0.5, token_usage=used)
    # 2 of the 4 that a judge took part in; 105 + 105 + 40 tokens; the last has none of it
    assert metrics(clipped, uncounted, plain, none, Grade(value=0.1)) == {"clipped_frac": 0.5, "judge_tokens": 250.0}


def test_invalid_grades_are_counted_among_those_of_multi_graders():
    joined = Grade(value=0.5, sub_grades={"a": 0.5})
    stand_in = Grade(value=0.0, substituted="part 'a': no process")  # not one part had a number
    half = Grade(value=0.0, sub_grades={"b": 1.0}, substituted="part 'a': no process")
    missing = Grade(value=None, reason="down", is_fault=True, sub_grades={"b": 1.0})
    assert metrics(joined, stand_in, half, missing) == {"substituted_frac": pytest.approx(2 / 3)}


def test_without_judges_and_formulas_there_is_nothing_to_show():
    assert metrics(Grade(value=1.0), Grade(value=None, reason="?")) == {}
