"""Chat streams from the engine process: tokens a second and time to the first token, base alone and adapters mixed.

    python benchmarks/serving.py --json serving.json        # 1, 16 and 50 streams of SmolLM2-135M, 4 adapters
    python benchmarks/serving.py --streams 50 --training    # while another process trains the same model

Every stream asks another question under one system text of about 300 tokens, as an agent's users do, and gets 48
tokens at temperature 1. The peer column is the same load on the base model alone; ours mixes base and adapters (rank 16
on all linear layers, unmerged). Required: with 50 streams nobody gets less than one token a second, training or not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentrft.jobs.models import Weights, find_weights
from agentrft.runtime.serving.client import EngineClient
from agentrft.runtime.serving.wire import ChatRequest, Ended, Started
from harness.result import Case, Result, deliver, median, spread, warn_when_busy

SYSTEM = "You answer questions about config files in few words. " + " ".join(
    f"Rule {n}: look into folder {n} before you answer." for n in range(24)
)
TOKENS = 48
RANK, ALPHA = 16, 32.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One reply."""

    tokens: int
    first_s: float
    """From the question to the first token."""
    wall_s: float

    @property
    def rate(self) -> float:
        """Tokens a second, the wait for the first included."""
        return self.tokens / self.wall_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Some streams at once."""

    rate: float
    """Tokens a second of all together."""
    first_s: float
    """Median time to the first token."""
    slowest: float
    """Tokens a second of the slowest stream."""


async def stream(client: EngineClient, weights: Weights, n: int) -> Stream:
    """Play one reply to its end."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"What is the port of app {n}?"}]
    request = ChatRequest(weights=weights, messages=messages, max_tokens=TOKENS, seed=n)
    begin, first_s, tokens = time.perf_counter(), 0.0, 0
    async for event in client.chat(request):
        if isinstance(event, Started):
            first_s = time.perf_counter() - begin
        if isinstance(event, Ended):
            tokens = event.usage.completion_tokens
    return Stream(tokens=tokens, first_s=first_s, wall_s=time.perf_counter() - begin)


async def play(client: EngineClient, models: Sequence[Weights], count: int, salt: int) -> Round:
    """`count` streams at once, over `models` in turn; questions differ from round to round."""
    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stream(client, models[k % len(models)], salt * 1000 + k)) for k in range(count)]
    wall_s = time.perf_counter() - begin
    streams = [task.result() for task in tasks]
    return Round(
        rate=sum(one.tokens for one in streams) / wall_s,
        first_s=median([one.first_s for one in streams]),
        slowest=min(one.rate for one in streams),
    )


async def measure(base: Weights, adapters: Sequence[Weights], sizes: Sequence[int], rounds: int) -> Result:
    """Base and mixed in turns, after a round that loads everything."""
    client = EngineClient()
    cases: list[Case] = []
    details: dict[str, object] = {}
    slowest = float("inf")
    try:
        mixed = [base, *adapters]
        await play(client, mixed, len(mixed), 0)
        for size in sizes:
            found: dict[str, list[Round]] = {"base": [], "mixed": []}
            for number in range(1, rounds + 1):
                for name, models in (("base", [base]), ("mixed", mixed)):
                    found[name].append(await play(client, models, size, number))
            rates = {name: [one.rate for one in got] for name, got in found.items()}
            firsts = {name: [one.first_s for one in got] for name, got in found.items()}
            cases += [
                _case(f"{size} streams: tokens/s", "tokens/s", rates, better="higher"),
                _case(f"{size} streams: first token", "s", firsts, better="lower"),
            ]
            slow = {name: min(one.slowest for one in got) for name, got in found.items()}
            details[f"{size} streams"] = {
                **{name: spread(values) for name, values in rates.items()},
                "slowest stream, tokens/s": slow,
            }
            slowest = min(slow.values()) if size == max(sizes) else slowest
    finally:
        await client.close()
    checks = {f"{max(sizes)} streams: at least 1 token/s each (slowest {slowest:.2f})": slowest >= 1.0}
    return Result(title="Chat streams", peer="base alone", cases=cases, details=details, checks=checks)


def _case(name: str, unit: str, found: dict[str, list[float]], *, better: str) -> Case:
    ours, peer = median(found["mixed"]), median(found["base"])
    return Case(
        name=name, unit=unit, ours=ours, peer=peer, better="higher" if better == "higher" else "lower", gated=False
    )


def make_adapters(base: Weights, folder: Path, count: int) -> list[Weights]:
    """Adapters with random weights, as the learner saves them."""
    import torch

    from agentrft.engines.torch_engine import LoraSpec, TorchEngine

    engine = TorchEngine.load(base.folder, lora=LoraSpec(rank=RANK, alpha=ALPHA), dtype="float32", device="cpu")
    made: list[Weights] = []

    async def save(target: Path) -> None:
        await engine.learner.save(target)

    for k in range(count):
        target = folder / f"adapter-{k}"
        target.mkdir()
        source = torch.Generator().manual_seed(k)
        with torch.no_grad():
            for _, layer in engine.model.adapters():
                layer.lora_b.copy_(torch.empty(layer.lora_b.shape).normal_(0.0, 0.002, generator=source))
        asyncio.run(save(target))
        made.append(Weights(name=target.name, folder=base.folder, trained=target, rank=RANK, alpha=ALPHA))
    asyncio.run(engine.close())
    return made


def train_forever(folder: Path) -> None:
    """Supervised steps on made-up rows until the process is ended, as nice as the server's workers are by default."""
    os.nice(5)
    from agentrft.engines.torch_engine import LoraSpec, TorchEngine
    from agentrft.losses.spec import SupervisedLoss
    from agentrft.types import Row

    engine = TorchEngine.load(folder, lora=LoraSpec(rank=RANK, alpha=ALPHA))
    ids = [100 + 7 * t % 1000 for t in range(256)]
    rows = [
        Row(
            ids=ids,
            trained=[t > 20 for t in range(256)],
            log_probs=[0.0] * 256,
            credit=[0.001] * 256,
            unit=str(k),
            group=str(k),
        )
        for k in range(8)
    ]

    async def loop() -> None:
        while True:
            await engine.learner.forward_backward(rows, SupervisedLoss())
            await engine.learner.optim_step(1e-5)

    asyncio.run(loop())


@contextlib.contextmanager
def training(folder: Path, wanted: bool) -> Iterator[None]:
    """A process that trains beside the streams, when it is wanted."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, __file__, "--train-forever", str(folder)])
    time.sleep(15)  # it has loaded and trains by then
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--streams", default="1,16,50")
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--training", action="store_true", help="train in another process meanwhile")
    parser.add_argument("--train-forever", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.train_forever is not None:
        train_forever(options.train_forever)
        return
    warn_when_busy()
    base = find_weights(options.model)
    sizes = [int(size) for size in options.streams.split(",")]
    with tempfile.TemporaryDirectory() as scratch, training(base.folder, options.training):
        adapters = make_adapters(base, Path(scratch), options.adapters)
        deliver(asyncio.run(measure(base, adapters, sizes, options.rounds)), options.json)


if __name__ == "__main__":
    main()
