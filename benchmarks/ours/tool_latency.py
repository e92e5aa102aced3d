"""Our rollout as a worker: all episodes of the look-up task at once, as training plays them, for each request.

`{"do": "rollout", "kind": …, "latency_s": …, "seed": …}` plays `run_groups`, one member an item, tools through their
one call path, a grader behind them. Everything that computing prompts has left in memory is dropped before each, as
after an optimiser step.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentrft.chat import pick_format
from agentrft.data.rows import item_from_row
from agentrft.engines.models import load_tokenizer
from agentrft.engines.torch_engine import LoraSpec, TorchEngine
from agentrft.graders import build_grader
from agentrft.rollout import Actor, Agent, GeneratorActor, Limits, Rollout, Seat, run_groups, trained_tokens
from agentrft.tools import JobTools, PythonBinding, open_toolset
from agentrft.types import Episode, Item
from harness.lookup import ANSWER, CALLS, TOOL, digest, messages_for, pairs
from harness.pipe import Pipe, serve

TOOLS = Path(__file__).parent
BINDINGS = {
    "sync, process": PythonBinding(type="python", target="waiting_tools.py:Sleeping", isolation="process"),
    "sync, thread": PythonBinding(type="python", target="waiting_tools.py:Sleeping", isolation="thread"),
    "async, inline": PythonBinding(type="python", target="waiting_tools.py:Waiting", isolation="inline"),
}
GRADER = {
    "type": "string_check",
    "name": "done",
    "input": "{{sample.output_text}}",
    "reference": ANSWER,
    "operation": "eq",
}


def items_for(episodes: int, seed: int, latency_s: float) -> list[Item]:
    """One item an episode; the latency is in a field, which only the tool sees."""
    return [
        item_from_row({"id": f"{seed}-{k}", "messages": messages_for(pair), "tools": [TOOL], "latency_s": latency_s})
        for k, pair in enumerate(pairs(episodes, seed))
    ]


async def roll_out(actor: Actor, tools: JobTools, items: Sequence[Item], *, seed: int, new: int) -> list[Episode]:
    """Every item played once, all at the same time; `new` tokens a reply at most."""
    agent = Agent(actor=actor, tools=tools, limits=Limits(max_turns=CALLS + 2, max_reply_tokens=new))
    seats = [Seat(index=index, item=item) for index, item in enumerate(items)]
    grader = build_grader(GRADER, Path())
    try:
        groups = await run_groups(Rollout(run="bench", step=seed, members=1, seats=seats), agent, grader)
    finally:
        await grader.close()
    return [group.episodes[0] for group in groups]


def summary(episodes: Sequence[Episode]) -> dict[str, Any]:
    """What was in a rollout: generated tokens, calls, a digest of the prompts, and what went wrong."""
    traces = [episode.tokens for episode in episodes if episode.tokens is not None]
    return {
        "new_tokens": sum(map(trained_tokens, episodes)),
        "prompts": digest(trace.ids[: trace.prompt_tokens] for trace in traces),
        "two_calls": sum(episode.n_calls == CALLS for episode in episodes),
        "calls": sum(episode.n_calls for episode in episodes),
        "faults": [episode.fault for episode in episodes if episode.fault],
    }


class Player:
    """Keeps the engine and one set of tools for each kind."""

    def __init__(self, engine: TorchEngine, options: argparse.Namespace) -> None:
        self._engine = engine
        self._options = options
        chat_format = pick_format(load_tokenizer(options.model))
        self._actor = GeneratorActor(generator=engine.generator, chat_format=chat_format)
        self._tools: dict[str, JobTools] = {}

    async def rollout(self, kind: str, latency_s: float, seed: int) -> dict[str, Any]:
        """Play every episode once; seconds, and see `summary`."""
        if kind not in self._tools:
            self._tools[kind] = await open_toolset([BINDINGS[kind]], TOOLS)
        items = items_for(self._options.episodes, seed, latency_s)
        engine = self._engine
        await asyncio.get_running_loop().run_in_executor(engine.executor, engine.generator.forget)
        started = time.perf_counter()
        episodes = await roll_out(self._actor, self._tools[kind], items, seed=seed, new=self._options.new)
        return {"rollout_s": time.perf_counter() - started, "dtype": engine.dtype, **summary(episodes)}

    async def close(self) -> None:
        """End the processes of the tools, then the engine."""
        for tools in self._tools.values():
            await tools.close()
        await self._engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--episodes", type=int, required=True)
    parser.add_argument("--new", type=int, required=True, help="tokens of one reply at most")
    options = parser.parse_args()
    pipe = Pipe()
    engine = TorchEngine.load(options.model, lora=LoraSpec(rank=16, alpha=32), dtype=options.dtype)
    player = Player(engine, options)
    pipe.reply({"ready": True, "dtype": engine.dtype})
    with asyncio.Runner() as runner:
        serve({"rollout": lambda r: runner.run(player.rollout(r["kind"], r["latency_s"], r["seed"]))}, pipe)
        runner.run(player.close())


if __name__ == "__main__":
    main()
