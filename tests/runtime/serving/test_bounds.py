"""More models and adapters than there is place for: whoever asks gets his own, never another's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentrft.jobs.models import Weights, find_weights
from agentrft.runtime.serving.client import EngineClient
from agentrft.runtime.serving.wire import ChatRequest

Ask = Callable[..., ChatRequest]
Hear = Callable[..., Any]
Client = Callable[..., EngineClient]


async def test_adapters_and_full_weights_are_played(
    client: Client, asked: Ask, hear: Hear, chat_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from chat_models import save_adapter, save_chat_model

    base = chat_model("hermes")
    adapters = [save_adapter(tmp_path / f"a{k}", base, seed=k) for k in range(3)]
    full = save_chat_model("hermes", tmp_path / "full", seed=5)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (full / name).unlink()  # as our learner saves it
    named = [find_weights(str(folder)) for folder in adapters]
    wanted = [asked(weights=w) for w in named]
    wanted.append(asked(weights=Weights(name="full", folder=base, trained=full)))
    wanted.append(asked("hermes"))
    engine = client(max_models=1, max_adapters=1)
    alone = [(await hear(engine, one)).text for one in wanted]
    assert len(set(alone)) == 5
    async with asyncio.TaskGroup() as group:  # more adapters and models at once than there is place for
        tasks = [group.create_task(hear(engine, one)) for one in wanted * 2]
    assert [task.result().text for task in tasks] == alone * 2


async def test_weights_that_change_in_their_folder_are_loaded_anew(
    client: Client, asked: Ask, hear: Hear, chat_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from chat_models import save_adapter

    base = chat_model("hermes")
    engine = client()
    folder = tmp_path / "adapter"
    wanted = []
    for seed in (1, 2):
        save_adapter(folder, base, seed=seed)
        wanted.append((await hear(engine, asked(weights=find_weights(str(folder))))).text)
    assert wanted[0] != wanted[1]
    assert (await hear(engine, asked(weights=find_weights(str(folder))))).text == wanted[1]
