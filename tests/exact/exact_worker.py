"""One life of a small job in exact mode, as a process that may be killed: `exact_worker.py MODEL FOLDER DTYPE`.

Supervised warm-up, then reinforcement, on a tiny random-weight model, with tools that take a random time (a different
one in every life). Prints `ready` when training starts, and at the end the SHA-256 of the final adapter and the
metrics.
"""

import asyncio
import hashlib
import json
import random
import sys
from pathlib import Path

from agentrft.data.rows import Demonstration
from agentrft.engines.torch_engine import LoraSpec, TorchEngine
from agentrft.protocols import ToolSession
from agentrft.rollout import Agent, GeneratorActor, Limits
from agentrft.store import open_store
from agentrft.testing import CharFormat, ScriptedGrader, ScriptedTools
from agentrft.train import RftPlan, RunLog, SftPlan, demonstration_row, rft, sft
from agentrft.train.metrics import without_timing
from agentrft.types import Item, Message, Sample, ToolCall, ToolResult

FORMAT = CharFormat()
DIGITS = "0123"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def make_items(n: int, start: int = 0) -> list[Item]:
    ask = [Message(role="user", content=f"which {'?' * (1 + i % 3)}") for i in range(start, start + n)]
    return [Item(id=f"row-{start + i}", messages=(ask[i],), fields={"digit": DIGITS[i % 4]}) for i in range(n)]


def demonstration(item: Item) -> Demonstration:
    call = ToolCall(id="c", name="p", arguments="{}")
    digit = item.fields["digit"]
    replies = (
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content=digit, tool_call_id="c"),
        Message(role="assistant", content=digit),
    )
    return Demonstration(id=item.id, messages=(*item.messages, *replies))


def reward(sample: Sample, item: Item) -> float:
    return 0.2 * (sample.n_calls > 0) + 0.8 * (sample.output_text == item.fields["digit"])


class SlowTools(ScriptedTools):
    """A call takes up to 20 ms, decided by nothing that a seed reaches."""

    async def open(self, item: Item, trace_id: str) -> ToolSession:
        session = await super().open(item, trace_id)
        quick = session.call

        async def slow(call: ToolCall) -> ToolResult:
            await asyncio.sleep(random.SystemRandom().uniform(0.0, 0.02))
            return await quick(call)

        session.call = slow
        return session


async def main(model: Path, folder: Path, dtype: str) -> None:
    store = open_store(folder / "home")
    if not store.list_jobs():
        store.create_job({"id": "ftjob-x"})
    engine = TorchEngine.load(model, lora=LoraSpec(rank=4, alpha=8), dtype=dtype, device="cpu", exact=True)
    log = RunLog(store, "ftjob-x")
    agent = Agent(
        actor=GeneratorActor(generator=engine.generator, chat_format=FORMAT),
        tools=SlowTools({"p": lambda arguments, item: item.fields["digit"]}),
        limits=Limits(max_turns=3, max_reply_tokens=4),
    )
    rows = [demonstration_row(demonstration(item), [], FORMAT, max_tokens=64) for item in make_items(12)]
    warm_up = SftPlan(
        run="ftjob-x",
        folder=folder / "sft",
        rows=rows,
        batch_size=3,
        n_epochs=9.0,
        learning_rate=0.02,
        checkpoint_interval=4,
    )
    plan = RftPlan(
        run="ftjob-x",
        folder=folder / "rft",
        items=make_items(12),
        validation=make_items(4, start=100),
        steps=8,
        batch_size=3,
        group_size=4,
        learning_rate=3e-3,
        eval_interval=3,
    )
    say("ready")
    await sft.train(warm_up, engine.learner, log)
    result = await rft.train(plan, engine.learner, agent, ScriptedGrader(reward), log)
    adapter = (result.last.path / "adapter_model.safetensors").read_bytes()
    metrics = [(m["step"], without_timing(m["metrics"])) for m in store.list_metrics("ftjob-x")]
    say(json.dumps({"adapter": hashlib.sha256(adapter).hexdigest(), "metrics": metrics}))
    await engine.close()
    store.close()


asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
