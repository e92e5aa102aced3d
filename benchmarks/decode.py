"""New tokens a second beside transformers and vLLM's CPU build, and how long each takes to its first token.

    python benchmarks/decode.py --json decode.json
    python benchmarks/decode.py --peers transformers --sequences 1,16 --repeats 1        # a quick look

Every engine runs in a process of its own, on the same float32 weights, and gets the same ids: prompts of 300 ids, 8
sequences to a prompt, exactly 64 new tokens each, temperature 1, new prompts each time. A figure is new tokens
divided by the wall-clock time from request to last token, reading the prompts included; medians of the repeats. Each
peer is tried in every configuration listed in CONFIGURATIONS and is given its best one, case by case. Ours computes
every token's log-prob as well.

Start to first token: from starting the process to one token from a short prompt. vLLM compiles on its very first
start and keeps the result; `cold` is that first start, the case beside ours is a later one.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import environments
from agentrft.engines.models import resolve
from harness.result import Case, Result, deliver, median, spread, warn_when_busy
from harness.worker import Worker, WorkerError, WorkerTimeout

PATIENCE_S = 1200.0
"""A configuration that is not ready, or not done with a request, after this long is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One way to run one engine."""

    engine: str
    name: str
    module: str
    arguments: tuple[str, ...] = ()


CONFIGURATIONS = (
    Configuration(
        engine="transformers", name="generate, float32", module="peers.hf_decode", arguments=("--dtype", "float32")
    ),
    Configuration(
        engine="transformers", name="generate, bfloat16", module="peers.hf_decode", arguments=("--dtype", "bfloat16")
    ),
    Configuration(
        engine="transformers",
        name="generate_batch, float32",
        module="peers.hf_decode",
        arguments=("--dtype", "float32", "--continuous"),
    ),
    Configuration(
        engine="vllm", name="compiled, float32", module="peers.vllm_decode", arguments=("--dtype", "float32")
    ),
    Configuration(
        engine="vllm", name="eager, float32", module="peers.vllm_decode", arguments=("--dtype", "float32", "--eager")
    ),
    Configuration(
        engine="vllm", name="compiled, bfloat16", module="peers.vllm_decode", arguments=("--dtype", "bfloat16")
    ),
    Configuration(
        engine="vllm", name="eager, bfloat16", module="peers.vllm_decode", arguments=("--dtype", "bfloat16", "--eager")
    ),
)


@dataclass(slots=True)
class Measured:
    """What one configuration did."""

    engine: str
    name: str
    start_s: float | None = None
    cold_start_s: float | None = None
    tokens_per_s: dict[int, list[float]] = field(default_factory=dict)
    dtype: str = ""
    problem: str = ""

    def rate(self, sequences: int) -> float | None:
        """Median new tokens a second, or None where it never got there."""
        rates = self.tokens_per_s.get(sequences)
        return median(rates) if rates else None


def vllm_environment() -> dict[str, str]:
    """What vLLM's manual asks for on a small machine: all cores, its OpenMP and allocator, no calls home."""
    cores = sorted(os.sched_getaffinity(0))
    return {
        "LD_PRELOAD": environments.preloads("vllm"),
        "OMP_NUM_THREADS": str(len(cores)),
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        # By default it keeps one core for its front end: on two cores that halves what it computes with.
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "VLLM_CACHE_ROOT": str(vllm_cache()),
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def vllm_cache() -> Path:
    """Where vLLM keeps what it compiled."""
    return environments.cache() / "scratch" / "vllm-cache"


def start(model: Path, configuration: Configuration) -> tuple[Worker, float, str]:
    """A loaded worker, seconds from process start to its first token, and its dtype."""
    is_vllm = configuration.engine == "vllm"
    worker = Worker(
        configuration.module,
        ["--model", str(model), *configuration.arguments],
        log=environments.cache() / "scratch" / f"{configuration.engine}.log",
        python=environments.python_of("vllm") if is_vllm else None,
        env=vllm_environment() if is_vllm else {"HF_HUB_OFFLINE": "1"},
    )
    try:
        answer = worker.ready(timeout_s=PATIENCE_S)
    except WorkerError:
        worker.close()
        raise
    return worker, answer.wall_s, answer.data["dtype"]


def measure(model: Path, configuration: Configuration, options: argparse.Namespace, seed: int) -> Measured:
    """All requests of one configuration; what went wrong is part of the answer."""
    measured = Measured(engine=configuration.engine, name=configuration.name)
    try:
        if configuration.engine == "vllm" and "--eager" not in configuration.arguments:
            shutil.rmtree(vllm_cache(), ignore_errors=True)
            worker, measured.cold_start_s, _ = start(model, configuration)
            worker.close()
        worker, measured.start_s, measured.dtype = start(model, configuration)
        with worker:
            request = {"prompt": options.prompt, "new": options.new, "share": options.share}
            worker.ask("generate", timeout_s=PATIENCE_S, sequences=max(options.sequences), seed=seed, **request)
            for sequences in options.sequences:
                for repeat in range(options.repeats):
                    answer = worker.ask(
                        "generate", timeout_s=PATIENCE_S, sequences=sequences, seed=seed + 1 + repeat, **request
                    )
                    if answer.data["new_tokens"] != sequences * options.new:
                        raise WorkerError(
                            f"made {answer.data['new_tokens']} tokens, expected {sequences * options.new}"
                        )
                    rate = answer.data["new_tokens"] / answer.wall_s
                    measured.tokens_per_s.setdefault(sequences, []).append(rate)
    except WorkerTimeout as error:
        measured.problem = f"given up: {error}"
    except WorkerError as error:
        measured.problem = str(error).strip().splitlines()[-1][-200:]
    print(f"  {measured.engine} {measured.name}: {describe(measured)}", flush=True)
    return measured


def describe(measured: Measured) -> str:
    """One line: start and rates, or the problem."""
    rates = ", ".join(f"{n}: {measured.rate(n):.0f}/s" for n in measured.tokens_per_s)
    start_s = "" if measured.start_s is None else f"first token {measured.start_s:.1f} s; "
    return f"{start_s}{rates} {measured.problem}".strip()


def cases_of(ours: Measured, peers: Sequence[Measured], sequences: Sequence[int]) -> list[Case]:
    """Ours beside the best configuration of each peer; vLLM from 16 sequences up and the start are gated."""
    cases = []
    for engine in dict.fromkeys(peer.engine for peer in peers):
        runs = [peer for peer in peers if peer.engine == engine]
        for n in sequences:
            best = max((rate for run in runs if (rate := run.rate(n)) is not None), default=None)
            if best is not None and (our_rate := ours.rate(n)) is not None:
                gated = engine == "vllm" and n >= 16
                name = f"{n} sequences, {engine}"
                cases.append(Case(name=name, unit="tokens/s", ours=our_rate, peer=best, better="higher", gated=gated))
        fastest = max(
            (run for run in runs if run.tokens_per_s), key=lambda run: run.rate(max(sequences)) or 0, default=None
        )
        if fastest is not None and fastest.start_s is not None and ours.start_s is not None:
            cases.append(
                Case(
                    name=f"start to first token, {engine}",
                    unit="s",
                    ours=ours.start_s,
                    peer=fastest.start_s,
                    better="lower",
                    gated=engine == "vllm",
                )
            )
    return cases


def details_of(all_runs: Sequence[Measured]) -> dict[str, object]:
    """Every configuration with its rates, starts and problem."""
    return {
        f"{run.engine}, {run.name}": {
            "dtype": run.dtype,
            "start_s": run.start_s,
            "cold_start_s": run.cold_start_s,
            "tokens_per_s": {str(n): spread(rates) for n, rates in run.tokens_per_s.items()},
            "problem": run.problem,
        }
        for run in all_runs
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="auto", help="ours; the peers are tried in each of theirs")
    parser.add_argument("--peers", default="transformers,vllm", type=lambda text: text.split(","))
    parser.add_argument("--sequences", default="1,16,64", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--prompt", type=int, default=300)
    parser.add_argument("--share", type=int, default=8, help="sequences to a prompt")
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warn_when_busy()
    model = resolve(options.model)
    our_way = Configuration(engine="ours", name="", module="ours.decode", arguments=("--dtype", options.dtype))
    # Ours runs before and after the peers: where the machine drifts, both are in the median.
    first = measure(model, our_way, options, seed=1000)
    peers = [measure(model, c, options, seed=2000) for c in CONFIGURATIONS if c.engine in options.peers]
    second = measure(model, our_way, options, seed=3000)
    ours = Measured(engine="ours", name="", dtype=first.dtype, problem=first.problem or second.problem)
    starts = [s for s in (first.start_s, second.start_s) if s is not None]
    ours.start_s = median(starts) if starts else None
    for n in options.sequences:
        ours.tokens_per_s[n] = [*first.tokens_per_s.get(n, []), *second.tokens_per_s.get(n, [])]
    title = f"Decoding {options.new} tokens from {options.prompt}-token prompts, {options.share} to a prompt"
    result = Result(
        title=f"{title}; ours in {ours.dtype}",
        peer="peer",
        cases=cases_of(ours, peers, options.sequences),
        details=details_of([ours, *peers]),
    )
    deliver(result, options.json)


if __name__ == "__main__":
    main()
