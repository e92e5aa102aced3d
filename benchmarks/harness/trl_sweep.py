"""Which TRL configuration is fastest here: a staged sweep, remembered for this machine and these sizes."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import environments
from harness.result import machine, table
from harness.worker import Worker, WorkerError, WorkerTimeout

COMPILE_S = 1800.0
"""Seconds a configuration that compiles may take for its first step."""
PATIENCE = 1.5
"""A configuration whose step takes this many times the best one's (and 20 s more) is given up."""
DEFAULTS = "TRL's own defaults"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """One RFT step: how many items, members, prompt tokens and new tokens."""

    items: int = 8
    members: int = 8
    prompt: int = 200
    new: int = 64

    @property
    def rows(self) -> int:
        return self.items * self.members

    def arguments(self) -> list[str]:
        """As command-line arguments of a worker."""
        return [part for name, value in asdict(self).items() for part in (f"--{name}", str(value))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One configuration and how it did: seconds of its first step (of its second if it compiles), or why not."""

    name: str
    config: dict[str, Any]
    step_s: float | None
    problem: str = ""


def trl_worker(model: Path, config: dict[str, Any], sizes: Sizes) -> Worker:
    """A TRL process that has loaded its model; raises WorkerError when the configuration is refused."""
    scratch = environments.cache() / "scratch"
    worker = Worker(
        "peers.trl_grpo",
        ["--model", str(model), "--config", json.dumps(config), "--scratch", str(scratch), *sizes.arguments()],
        log=scratch / "trl.log",
        python=environments.python_of("trl"),
        env={"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    try:
        worker.ready()
    except WorkerError:
        worker.close()
        raise
    return worker


def splits(sizes: Sizes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every way to cut the step's rows into equal micro-batches of a power of two; generation always has all rows."""
    batch = sizes.rows
    yield f"{batch} rows x 1", {"per_device_train_batch_size": batch}
    while batch % 2 == 0 and batch > 4:
        batch //= 2
        yield f"{batch} rows x {sizes.rows // batch}", {"per_device_train_batch_size": batch}


def variations(best: dict[str, Any], sizes: Sizes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Changes to the best split, one at a time; TRL's pure defaults last, to know what a user gets."""
    batch = best["per_device_train_batch_size"]
    accumulate = sizes.rows // batch
    for parts in (2, 4):
        # TRL generates for `steps_per_generation` micro-batches at once; it must hold whole groups.
        if accumulate % parts == 0 and (sizes.rows // parts) % sizes.members == 0:
            yield f"generate in {parts} parts", {**best, "steps_per_generation": accumulate // parts}
    yield "eager attention", {**best, "attn_implementation": "eager"}
    yield "bf16 autocast", {**best, "bf16": True}
    yield "bf16 weights", {**best, "bf16": True, "model_dtype": "bfloat16"}
    continuous = {"use_transformers_continuous_batching": True, "transformers_continuous_batching_config": pages(sizes)}
    yield "continuous batching", {**best, **continuous}
    yield "continuous batching, bf16", {**best, **continuous, "bf16": True, "model_dtype": "bfloat16"}
    yield "torch.compile", {**best, "torch_compile": True}
    yield DEFAULTS, {**best, "bf16": True, "gradient_checkpointing": True}


def pages(sizes: Sizes) -> dict[str, int]:
    """Continuous batching with a cache that just holds the step, in pages small enough to share most of a prompt.

    Left to itself it takes half of the free memory, and its pages of 256 tokens cannot share a prompt of 200.
    """
    page = 32
    a_sequence = -(-(sizes.prompt + sizes.new) // page) + 1
    return {"page_size": page, "num_blocks": sizes.rows * a_sequence, "max_batch_tokens": 1024}


def try_config(model: Path, name: str, config: dict[str, Any], sizes: Sizes, best_s: float | None) -> Tried:
    """Time one step in a fresh process; gives up on what is far slower than the best so far.

    No warm-up: its cost is the same small part of every configuration's first step, compilation excepted.
    """
    limit = None if best_s is None else PATIENCE * best_s + 20
    try:
        with trl_worker(model, config, sizes) as worker:
            if "torch_compile" in config:
                worker.ask("step", timeout_s=COMPILE_S)
            answer = worker.ask("step", timeout_s=limit)
    except WorkerTimeout as error:
        return Tried(name=name, config=config, step_s=None, problem=f"given up: {error}")
    except WorkerError as error:
        return Tried(name=name, config=config, step_s=None, problem=str(error).strip().splitlines()[-1])
    if answer.data["new_tokens"] != sizes.rows * sizes.new:
        return Tried(name=name, config=config, step_s=None, problem=f"made {answer.data['new_tokens']} tokens")
    return Tried(name=name, config=config, step_s=answer.wall_s)


def fastest(tried: list[Tried]) -> Tried:
    """The working configuration with the shortest step; raises WorkerError when none works."""
    working = [one for one in tried if one.step_s is not None]
    if not working:
        raise WorkerError("no TRL configuration works here:\n" + "\n".join(f"{t.name}: {t.problem}" for t in tried))
    return min(working, key=lambda one: one.step_s or 0.0)


def run_sweep(model: Path, sizes: Sizes, file: Path, skip: frozenset[str]) -> list[Tried]:
    """The staged sweep: row splits first, then variations of the best split. Prints as it goes.

    Every outcome goes into `file` at once; what is there already is not tried again. What is skipped is listed as such
    and not remembered.
    """
    tried = [Tried(**record) for record in json.loads(file.read_text())] if file.exists() else []

    skipped: list[Tried] = []

    def stage(settings: Iterator[tuple[str, dict[str, Any]]]) -> None:
        for name, config in settings:
            if any(one.name == name for one in tried):
                continue
            if name in skip:
                skipped.append(Tried(name=name, config=config, step_s=None, problem="skipped on request"))
                continue
            times = [one.step_s for one in tried if one.step_s is not None]
            tried.append(try_config(model, name, config, sizes, min(times, default=None)))
            print(f"  TRL {name}: {outcome(tried[-1])}", flush=True)
            file.write_text(json.dumps([asdict(one) for one in tried], indent=2))

    stage(splits(sizes))
    stage(variations(fastest([one for one in tried if one.name in dict(splits(sizes))]).config, sizes))
    return tried + skipped


def remembered(model: Path, sizes: Sizes, *, again: bool, skip: frozenset[str] = frozenset()) -> list[Tried]:
    """The sweep for this machine and these sizes: what an earlier call has measured, and the rest now.

    `again` measures all of it anew; configurations named in `skip` are left out.
    """
    cpu = machine()
    key = json.dumps([asdict(sizes), cpu["processor"], cpu["cores"], cpu["vector_flags"], platform.node()])
    pins = environments.pins_of("trl").read_text()
    file = environments.cache() / f"trl-sweep-{hashlib.sha256((key + pins).encode()).hexdigest()[:12]}.json"
    if again:
        file.unlink(missing_ok=True)
    return run_sweep(model, sizes, file, skip)


def outcome(one: Tried) -> str:
    """Seconds, or the reason there are none."""
    return f"{one.step_s:.2f} s" if one.step_s is not None else one.problem[:100]


def sweep_table(tried: list[Tried]) -> str:
    """All configurations with their times, for the reader."""
    return table([("TRL configuration", "step"), *((one.name, outcome(one)) for one in tried)])
