"""A rollout whose tools take time, beside TRL's own tool loop: is waiting hidden, or does it add up?

    python benchmarks/tool_latency.py --json tool_latency.json       # 32 episodes, 2 calls, 0/50/200/1000 ms
    python benchmarks/tool_latency.py --episodes 4 --latencies 0,200 --repeats 1 --skip "continuous batching"

Every episode looks two things up, one call each, with a tool that sleeps, and then answers. Required of ours: wall time
≤ 1.2 × (model time + 2 × latency), where model time is the same rollout at 0 ms, measured in turns with the others in
the same process. Ours runs a synchronous tool in a process and in a thread an episode, and an asynchronous one on the
event loop; TRL 1.16 runs both kinds in its trainer, at its fastest configuration of a short sweep at 0 ms.

Both load the same weights: the base model after a minute of supervised training on this task, merged, made once and
kept with the peers' environments. Both are asked the same prompts (checked), generate at temperature 1, and really call
the tool; at least 95 % of the episodes must make exactly two calls. All episodes have different prompts, which share
their system text and tool; ours computes what they share once, TRL does not. Ours records a log-prob for every token.
TRL limits replies and tool results together, ours each reply. Memory of earlier rollouts is dropped before each one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environments
from agentrft.engines.models import resolve
from harness.lookup import CALLS
from harness.result import Case, Result, deliver, median, spread, table, warn_when_busy
from harness.trl_sweep import PATIENCE, Sizes, Tried, fastest, outcome, pages
from harness.worker import BENCHMARKS, Worker, WorkerError, WorkerTimeout

KINDS = {"sync, process": "sync", "sync, thread": "sync", "async, inline": "async"}
"""Ours → the kind of TRL's that it is set beside."""
TEMPLATE = "lib/python3*/site-packages/trl/chat_templates/qwen3_instruct_2507.jinja"
"""Of a ChatML model with tools whose calls TRL can read, and which never rewrites earlier turns."""
SLACK = 1.2
SHARE = 0.95
COMPLETION = 192
"""Tokens of an episode after its prompt at most, TRL's limit; it takes about 120."""
REPLY = 64
"""Tokens of one reply at most, ours; a call takes about 30."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One rollout: whose, with which tool and latency, and how it went."""

    side: str
    kind: str
    latency_ms: int
    seed: int
    """Of its prompts and its draws."""
    wall_s: float
    load: float
    """Load average of the machine (1 min) when it ended."""
    data: dict[str, Any]


def bound_s(model_s: float, latency_ms: float) -> float:
    """Seconds that a rollout may take: model time and the latency of its calls, and 20 % more."""
    return SLACK * (model_s + CALLS * latency_ms / 1000)


def drilled(model: Path) -> Path:
    """The base model trained to play the task; made where it is missing or older than what it is made from."""
    template = next(environments.python_of("trl").parent.parent.glob(TEMPLATE))
    sources = (template, BENCHMARKS / "ours" / "drill.py", BENCHMARKS / "harness" / "lookup.py", model / "config.json")
    key = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    folder = environments.cache() / f"look-up-{key}"
    if not folder.exists():
        print(f"Training {folder} (a minute or two, once)", file=sys.stderr)
        arguments = ["--model", str(model), "--template", str(template), "--folder", str(folder)]
        subprocess.run([sys.executable, "-m", "ours.drill", *arguments], cwd=BENCHMARKS, check=True)
    return folder


def our_worker(model: Path, options: argparse.Namespace) -> Worker:
    """Our engine in a process of its own, loaded."""
    arguments = ["--model", str(model), "--dtype", options.dtype, "--episodes", str(options.episodes)]
    log = environments.cache() / "scratch" / "ours.log"
    return _ready(Worker("ours.tool_latency", [*arguments, "--new", str(REPLY)], log=log))


def trl_worker(model: Path, config: dict[str, Any], episodes: int) -> Worker:
    """A TRL process that is ready to load its trainer."""
    scratch = environments.cache() / "scratch"
    arguments = ["--model", str(model), "--config", json.dumps(config), "--scratch", str(scratch)]
    return _ready(
        Worker(
            "peers.trl_tools",
            [*arguments, "--episodes", str(episodes), "--completion", str(COMPLETION)],
            log=scratch / "trl-tools.log",
            python=environments.python_of("trl"),
            env={"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
    )


def _ready(worker: Worker) -> Worker:
    try:
        worker.ready()
    except WorkerError:
        worker.close()
        raise
    return worker


def configurations(episodes: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The ways to generate that TRL offers on a CPU."""
    bfloat16 = {"bf16": True, "model_dtype": "bfloat16"}
    paged = pages(Sizes(items=episodes, members=1, prompt=256, new=COMPLETION))
    continuous = {"use_transformers_continuous_batching": True, "transformers_continuous_batching_config": paged}
    yield "float32", {}
    yield "bf16 weights", bfloat16
    yield "continuous batching", continuous
    yield "continuous batching, bf16", {**continuous, **bfloat16}


def sweep(model: Path, options: argparse.Namespace) -> list[Tried]:
    """Each configuration at 0 ms, skipped ones listed as such; prints as it goes."""
    tried: list[Tried] = []
    for name, config in configurations(options.episodes):
        if name in options.skip:
            tried.append(Tried(name=name, config=config, step_s=None, problem="skipped on request"))
            continue
        best_s = min((one.step_s for one in tried if one.step_s is not None), default=None)
        tried.append(try_config(model, name, config, options.episodes, best_s))
        print(f"  TRL {name}: {outcome(tried[-1])}", flush=True)
    return tried


def try_config(model: Path, name: str, config: dict[str, Any], episodes: int, best_s: float | None) -> Tried:
    """One rollout after a warm-up in a fresh process; gives up on what is far slower than the best so far.

    What does not play the task, however fast, does not count.
    """
    limit_s = None if best_s is None else PATIENCE * best_s + 20
    try:
        with trl_worker(model, config, episodes) as worker:
            play(worker, "TRL", "sync", 0, seed=0, limit_s=limit_s)
            tried = play(worker, "TRL", "sync", 0, seed=1, limit_s=limit_s)
    except WorkerTimeout as error:
        return Tried(name=name, config=config, step_s=None, problem=f"given up: {error}")
    except WorkerError as error:
        return Tried(name=name, config=config, step_s=None, problem=str(error).strip().splitlines()[-1])
    if tried.data["two_calls"] < SHARE * episodes:
        problem = f"{tried.data['two_calls']} of {episodes} episodes made {CALLS} calls"
        return Tried(name=name, config=config, step_s=None, problem=problem)
    return Tried(name=name, config=config, step_s=tried.wall_s)


def play(worker: Worker, side: str, kind: str, latency_ms: int, *, seed: int, limit_s: float | None = None) -> Played:
    """One rollout. Raises WorkerError when it fails, WorkerTimeout after `limit_s`."""
    answer = worker.ask("rollout", timeout_s=limit_s, kind=kind, latency_s=latency_ms / 1000, seed=seed)
    return Played(
        side=side,
        kind=kind,
        latency_ms=latency_ms,
        seed=seed,
        wall_s=answer.wall_s,
        load=round(os.getloadavg()[0], 2),
        data=answer.data,
    )


def measure(ours: Worker, peer: Worker, options: argparse.Namespace) -> list[Played]:
    """All rollouts in turns, after one of each kind that does not count; every other repeat goes backwards."""
    turns = [(ours, "ours", kind) for kind in KINDS] + [(peer, "TRL", kind) for kind in dict.fromkeys(KINDS.values())]
    for worker, side, kind in turns:
        play(worker, side, kind, 0, seed=0)
    played: list[Played] = []
    for repeat in range(options.repeats):
        order = 1 if repeat % 2 == 0 else -1
        for worker, side, kind in turns[::order]:
            if side == "TRL" and repeat >= options.trl_repeats:
                continue
            for latency_ms in options.latencies[::order]:
                played.append(play(worker, side, kind, latency_ms, seed=repeat + 1))
                print(f"  {side}, {kind}, {latency_ms} ms: {played[-1].wall_s:.2f} s", flush=True)
    return played


@dataclass(frozen=True, slots=True)
class Rollouts:
    """What was measured, and what follows from it."""

    played: Sequence[Played]
    episodes: int

    def walls_s(self, side: str, kind: str, latency_ms: int) -> list[float]:
        """Wall times of one case."""
        return [p.wall_s for p in self.played if (p.side, p.kind, p.latency_ms) == (side, kind, latency_ms)]

    def timing(self, side: str, kind: str, latency_ms: int) -> dict[str, Any]:
        """One case beside its bound; `waits` is how many latencies, one after the other, it took longer than at 0."""
        wall_s = median(self.walls_s(side, kind, latency_ms))
        model_s = median(self.walls_s(side, kind, 0))
        limit_s = bound_s(model_s, latency_ms)
        return {
            "wall_s": spread(self.walls_s(side, kind, latency_ms)),
            "model_s": round(model_s, 4),
            "bound_s": round(limit_s, 4),
            "within": wall_s <= limit_s,
            "waits": round(1000 * (wall_s - model_s) / latency_ms, 1) if latency_ms else None,
        }

    def two_calls(self, side: str) -> float:
        """Share of a side's episodes that made exactly two calls."""
        counts = [p.data["two_calls"] for p in self.played if p.side == side]
        return sum(counts) / (len(counts) * self.episodes)

    @property
    def asked_the_same(self) -> bool:
        """Whether all rollouts of one seed began with the same prompt ids."""
        return all(len({p.data["prompts"] for p in self.played if p.seed == one.seed}) == 1 for one in self.played)

    def spread_of(self, side: str, key: str) -> dict[str, float]:
        """A count of the side's rollouts."""
        return spread([p.data[key] for p in self.played if p.side == side])


def summary(rollouts: Rollouts, tried: list[Tried], latencies: Sequence[int], dtype: str) -> Result:
    """Medians as cases, the bounds as checks, everything else as details."""
    sides = {"ours": tuple(KINDS), "TRL": tuple(dict.fromkeys(KINDS.values()))}
    pairs = [(kind, latency_ms) for kind in KINDS for latency_ms in latencies]
    cases = [
        Case(
            name=f"{kind}, {latency_ms} ms",
            unit="s",
            ours=median(rollouts.walls_s("ours", kind, latency_ms)),
            peer=median(rollouts.walls_s("TRL", KINDS[kind], latency_ms)),
            better="lower",
        )
        for kind, latency_ms in pairs
    ]
    checks = {
        f"{kind}, {latency_ms} ms: wall ≤ {SLACK} × (model time + {CALLS} × latency)": rollouts.timing(
            "ours", kind, latency_ms
        )["within"]
        for kind, latency_ms in pairs
        if latency_ms
    }
    for side in sides:
        checks[f"{side}: at least {SHARE:.0%} of episodes make {CALLS} calls"] = rollouts.two_calls(side) >= SHARE
    checks["both were asked the same"] = rollouts.asked_the_same
    loads = [p.load for p in rollouts.played]
    details = {
        "episodes": rollouts.episodes,
        "timings": {
            f"{side}, {kind}, {latency_ms} ms": rollouts.timing(side, kind, latency_ms)
            for side, kinds in sides.items()
            for kind in kinds
            for latency_ms in latencies
        },
        "two_calls": {side: round(rollouts.two_calls(side), 4) for side in sides},
        "new_tokens": {side: rollouts.spread_of(side, "new_tokens") for side in sides},
        "ours": {"dtype": dtype},
        "trl": {"configuration": fastest(tried).name, "fields": fastest(tried).config},
        "trl_sweep": {one.name: one.step_s if one.step_s is not None else one.problem for one in tried},
        "load_average": {"min": min(loads), "max": max(loads)},
    }
    title = f"A rollout of {rollouts.episodes} episodes, {CALLS} calls each, by what a call takes; ours in {dtype}"
    return Result(title=title, peer="TRL 1.16", cases=cases, checks=checks, details=details)


def bounds_table(timings: dict[str, dict[str, Any]]) -> str:
    """Every case beside what it may take."""
    rows = [["", "model", "wall", "bound", "latencies waited for"]]
    for name, one in timings.items():
        seconds = [f"{value:.2f} s" for value in (one["model_s"], one["wall_s"]["median"], one["bound_s"])]
        rows.append([name, *seconds, "" if one["waits"] is None else f"{one['waits']:.1f}"])
    return table(rows)


def numbers(text: str) -> list[int]:
    """`0,50,200` as whole numbers."""
    return [int(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="is trained on the task first")
    parser.add_argument("--dtype", default="auto", help="ours; TRL's is part of its sweep")
    parser.add_argument("--episodes", type=int, default=32, help="an even number: TRL's groups have two")
    parser.add_argument("--latencies", type=numbers, default="0,50,200,1000", help="milliseconds of a call")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trl-repeats", type=int, default=1, help="its second at 1000 ms takes minutes")
    parser.add_argument("--skip", action="append", default=[], metavar="NAME", help="leave a TRL configuration out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if 0 not in options.latencies:
        parser.error("--latencies needs 0: model time is measured with it")
    if options.episodes % 2:
        parser.error("--episodes must be even: TRL's groups have two members at least")
    warn_when_busy()
    model = drilled(resolve(options.model))
    tried = sweep(model, options)
    print(f"In turns, TRL with {fastest(tried).name}:", flush=True)
    with our_worker(model, options) as ours, trl_worker(model, fastest(tried).config, options.episodes) as peer:
        dtype = play(ours, "ours", next(iter(KINDS)), 0, seed=0).data["dtype"]
        rollouts = Rollouts(measure(ours, peer, options), options.episodes)
    result = summary(rollouts, tried, options.latencies, dtype)
    print("\n" + bounds_table(result.details["timings"]))
    deliver(result, options.json)


if __name__ == "__main__":
    main()
