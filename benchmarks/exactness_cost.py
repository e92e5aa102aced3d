"""What `exact: true` costs: the time of one RFT step with and without it, on the same machine and weights.

    python benchmarks/exactness_cost.py --json exactness_cost.json
    python benchmarks/exactness_cost.py --items 2 --members 2 --prompt 20 --new 4 --pairs 1      # try it out

Exact mode gives bit-identical adapters whatever the order in which tools answer. It pads every product to a multiple
of 16 rows and computes attention sequence by sequence in fixed blocks. The `peer` here is our own default mode, in the
same dtype; a speedup of 0.5 means that exactness doubles the step.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import environments
from agentrft.engines.models import resolve
from harness.result import Case, Result, deliver, median, spread, warn_when_busy
from harness.trl_sweep import Sizes
from harness.worker import Answer, Worker, interleaved


def worker(model: Path, dtype: str, sizes: Sizes, *, exact: bool) -> tuple[Worker, str]:
    """A loaded engine and its dtype."""
    started = Worker(
        "ours.rft",
        ["--model", str(model), "--dtype", dtype, *sizes.arguments(), *(["--exact"] if exact else [])],
        log=environments.cache() / "scratch" / ("exact.log" if exact else "ours.log"),
    )
    return started, started.ready().data["dtype"]


def result(exact: list[Answer], default: list[Answer], sizes: Sizes, dtype: str) -> Result:
    """Medians of the parts of a step."""

    def case(name: str, key: str, gated: bool) -> Case:
        ours, peer = ([float(answer.data[key]) for answer in side] for side in (exact, default))
        return Case(name=name, unit="s", ours=median(ours), peer=median(peer), better="lower", gated=gated)

    what = f"{sizes.items} items x {sizes.members} members, {sizes.prompt} + {sizes.new} tokens"
    return Result(
        title=f"One RFT step in exact mode: {what}; {dtype}",
        peer="default",
        cases=[
            case("RFT step", "step_s", True),
            case("  rollout", "rollout_s", False),
            case("  training", "train_s", False),
        ],
        details={
            "dtype": dtype,
            "sizes": what,
            "exact_step_s": spread([answer.wall_s for answer in exact]),
            "default_step_s": spread([answer.wall_s for answer in default]),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="auto", help="of both; auto is chosen by measuring, once")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    for name in ("items", "members", "prompt", "new"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Sizes(), name))
    options = parser.parse_args()
    sizes = Sizes(items=options.items, members=options.members, prompt=options.prompt, new=options.new)
    warn_when_busy()
    model = resolve(options.model)
    default, dtype = worker(model, options.dtype, sizes, exact=False)
    with default:
        exact, _ = worker(model, dtype, sizes, exact=True)
        with exact:
            exact_answers, default_answers = interleaved(exact, default, options.pairs, labels=("exact", "default"))
    deliver(result(exact_answers, default_answers, sizes, dtype), options.json)


if __name__ == "__main__":
    main()
