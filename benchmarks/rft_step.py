"""One RFT step beside TRL's GRPOTrainer, at the fastest TRL configuration that works on this machine.

    python benchmarks/rft_step.py --json rft_step.json           # 8 items x 8 members, 200 + 64 tokens, 5 pairs
    python benchmarks/rft_step.py --sweep                        # measure TRL's configurations anew
    python benchmarks/rft_step.py --items 2 --members 2 --prompt 20 --new 4 --pairs 1      # try it out

Both train LoRA (rank 16, all linear layers) on the same float32 weights, for the same work: `items` different prompts
that share nothing, `members` replies each of exactly `new` tokens at temperature 1, a reward that hashes the reply's
tokens, one optimiser step. Each side lives in a process of its own that has warmed up; the parent lets them take turns
and measures wall-clock time from request to answer. Ours may use what it always uses (a group's prompt computed once);
so may TRL (continuous batching with prefix blocks is in the sweep).

Not equal: TRL reads text and so gets random words instead of random ids, and computes a completion's log-probs and
entropy from the current weights; ours also records the generator's log-probs. Neither calls tools.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import environments
from agentrft.engines.models import resolve
from harness.result import Case, Result, deliver, median, spread, warn_when_busy
from harness.trl_sweep import DEFAULTS, Sizes, Tried, fastest, remembered, sweep_table, trl_worker
from harness.worker import Answer, Worker, interleaved


def our_worker(model: Path, dtype: str, sizes: Sizes) -> Worker:
    """Our engine in a process of its own, loaded."""
    worker = Worker(
        "ours.rft",
        ["--model", str(model), "--dtype", dtype, *sizes.arguments()],
        log=environments.cache() / "scratch" / "ours.log",
    )
    worker.ready()
    return worker


def summary(ours: list[Answer], peer: list[Answer], tried: list[Tried], sizes: Sizes) -> Result:
    """Medians as cases, everything else as details."""

    def middle(answers: list[Answer], key: str) -> float:
        return median([float(answer.data[key]) for answer in answers])

    def case(name: str, key: str, scale: float = 1.0, unit: str = "s") -> Case:
        return Case(
            name=name,
            unit=unit,
            ours=middle(ours, key) * scale,
            peer=middle(peer, key) * scale,
            better="lower",
            gated=False,
        )

    whole = Case(
        name="RFT step",
        unit="s",
        ours=median([a.wall_s for a in ours]),
        peer=median([a.wall_s for a in peer]),
        better="lower",
    )
    chosen = fastest(tried)
    rollout_s, train_s = middle(ours, "rollout_s"), middle(ours, "train_s")
    details = {
        "sizes": f"{sizes.items} items x {sizes.members} members, {sizes.prompt} + {sizes.new} tokens",
        "pairs": len(ours),
        "ours": {
            "dtype": ours[-1].data["dtype"],
            "new_tokens_per_s": round(middle(ours, "new_tokens") / rollout_s, 1),
            "unique_trained_tokens_per_s": round(middle(ours, "unique_tokens") / train_s, 1),
            "step_s": spread([a.wall_s for a in ours]),
        },
        "trl": {"configuration": chosen.name, "fields": chosen.config, "step_s": spread([a.wall_s for a in peer])},
        "trl_sweep": {one.name: one.step_s if one.step_s is not None else one.problem for one in tried},
        "trl_defaults_step_s": next((one.step_s for one in tried if one.name == DEFAULTS), None),
    }
    cases = [
        whole,
        case("  rollout", "rollout_s"),
        case("  training", "train_s"),
        case("peak memory", "peak_rss_bytes", 2.0**-20, "MiB"),
    ]
    return Result(title=f"One RFT step: {details['sizes']}", peer="TRL 1.16", cases=cases, details=details)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="auto", help="ours; TRL's is part of its sweep")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--sweep", action="store_true", help="measure TRL's configurations anew, not only once")
    parser.add_argument("--skip", action="append", default=[], metavar="NAME", help="leave a TRL configuration out")
    parser.add_argument("--json", type=Path)
    for name in ("items", "members", "prompt", "new"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Sizes(), name))
    options = parser.parse_args()
    sizes = Sizes(items=options.items, members=options.members, prompt=options.prompt, new=options.new)
    warn_when_busy()
    model = resolve(options.model)
    tried = remembered(model, sizes, again=options.sweep, skip=frozenset(options.skip))
    print(sweep_table(tried))
    print(f"\nInterleaved pairs, TRL with {fastest(tried).name}:", flush=True)
    with our_worker(model, options.dtype, sizes) as ours, trl_worker(model, fastest(tried).config, sizes) as peer:
        result = summary(*interleaved(ours, peer, options.pairs, labels=("ours", "TRL")), tried, sizes)
    deliver(result, options.json)
    print(f"ours in {result.details['ours']['dtype']}, TRL with {result.details['trl']['fields']}", file=sys.stderr)


if __name__ == "__main__":
    main()
