"""Packed against padded training on the same engine: how much of the saved arithmetic becomes saved time.

    python benchmarks/prefix_tree.py --json prefix_tree.json
    python benchmarks/prefix_tree.py --shapes 20,10,4 --pairs 1          # try it out

Packed computes a group's prompt once; padded computes each row on its own (rows are equally long: nothing is padding).
Both use the same learner, LoRA rank 16, the head only at positions that predict a trained token, and each its own best
micro-batch of those tried. Timed is `forward_backward` of one group. The FLOP ratio (harness/flops.py) is what packing
could save at best; the share of it that is reached is required to be 80 %.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from agentrft.engines.models import resolve
from agentrft.engines.torch_engine import LoraSpec, TorchEngine
from agentrft.engines.torch_learner import LearnerSettings, TorchLearner
from agentrft.engines.torch_model import TorchModel
from agentrft.losses.spec import PolicyGradientLoss
from agentrft.types import Row
from harness.flops import Group, Shape, flop_ratio
from harness.prompts import token_prompts
from harness.result import Case, Result, deliver, median, spread, warn_when_busy

REQUIRED_SHARE = 0.8


@dataclass(slots=True)
class Arm:
    """One way to compute the same rows: a learner and its rows."""

    name: str
    learner: TorchLearner
    rows: list[Row]
    micro_batch_tokens: int

    async def time(self) -> float:
        """Seconds of one forward_backward; the gradient is dropped, the weights stay."""
        started = time.perf_counter()
        report = await self.learner.forward_backward(self.rows, PolicyGradientLoss())
        seconds = time.perf_counter() - started
        assert report.metrics
        await self.learner.optim_step(0.0)
        return seconds


def group_rows(group: Group, *, vocabulary: int, shared: bool) -> list[Row]:
    """One group's rows; not `shared` gives each row a group of its own, so that nothing keeps them together."""
    prompt, *suffixes = token_prompts(1, group.prompt, vocabulary=vocabulary, seed=1) + token_prompts(
        group.members, group.suffix, vocabulary=vocabulary, seed=2
    )
    return [
        Row(
            ids=[*prompt, *suffix],
            trained=[False] * group.prompt + [True] * group.suffix,
            log_probs=[0.0] * group.prompt + [-10.0] * group.suffix,
            credit=[0.0] * group.prompt + [1e-3 * (1 if member % 2 else -1)] * group.suffix,
            unit=str(member),
            group="0" if shared else str(member),
        )
        for member, suffix in enumerate(suffixes)
    ]


def shape_of(model: TorchModel) -> Shape:
    """The model's sizes for the FLOP count: every 2-D weight of its decoder blocks is a linear layer."""
    config = model.config
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    queries = config.hidden_size * width
    keys = 2 * config.hidden_size * model.kv_shape[0] * model.kv_shape[1]
    mlp = 3 * config.hidden_size * config.intermediate_size
    return Shape(
        linear_weights=(2 * queries + keys + mlp) * model.n_layers,
        attention_width=width,
        layers=model.n_layers,
        head_weights=model.head.numel(),
        trains_weights=model.lora is None,
    )


async def best_arm(engine: TorchEngine, group: Group, *, packed: bool) -> Arm:
    """The arm at the micro-batch that was fastest in one timing each (after one warm-up)."""
    name = "packed" if packed else "padded"
    arms = []
    rows = group_rows(group, vocabulary=engine.model.vocabulary, shared=packed)
    for members in sorted({max(group.members // 4, 1), max(group.members // 2, 1), group.members}):
        tokens = group.prompt + members * group.suffix if packed else members * (group.prompt + group.suffix)
        settings = LearnerSettings(micro_batch_tokens=tokens, share_prefixes=packed)
        learner = TorchLearner(engine.model, engine.executor, settings, on_update=lambda: None)
        arms.append(Arm(name, learner, rows, tokens))
    await arms[-1].time()
    timed = [(await arm.time(), arm) for arm in arms]
    for seconds, arm in timed:
        print(f"    {name}, micro-batches of {arm.micro_batch_tokens} tokens: {seconds:.3f} s", flush=True)
    return min(timed, key=lambda pair: pair[0])[1]


async def compare(engine: TorchEngine, group: Group, pairs: int) -> tuple[Case, dict[str, object]]:
    """Both arms at their best, taking turns; the case and what is behind it."""
    label = f"P={group.prompt} S={group.suffix} G={group.members}"
    print(f"  {label}", flush=True)
    packed = await best_arm(engine, group, packed=True)
    padded = await best_arm(engine, group, packed=False)
    packed_s, padded_s = [], []
    for pair in range(pairs):
        for arm, seconds in [(packed, packed_s), (padded, padded_s)][:: 1 if pair % 2 == 0 else -1]:
            seconds.append(await arm.time())
    case = Case(name=label, unit="s", ours=median(packed_s), peer=median(padded_s), better="lower")
    ratio = flop_ratio(shape_of(engine.model), group)
    return case, {
        "flop_ratio": round(ratio, 3),
        "achieved_share": round(case.speedup / ratio, 3),
        "packed_s": spread(packed_s),
        "padded_s": spread(padded_s),
        "packed_micro_batch_tokens": packed.micro_batch_tokens,
        "padded_micro_batch_tokens": padded.micro_batch_tokens,
        "packed_unique_tokens_per_s": round(group.unique_tokens / case.ours, 1),
    }


async def run(options: argparse.Namespace) -> Result:
    """All shapes on one loaded model."""
    engine = TorchEngine.load(resolve(options.model), lora=LoraSpec(rank=16, alpha=32), dtype=options.dtype)
    details: dict[str, object] = {"dtype": engine.dtype}
    cases, checks = [], {}
    for group in options.shapes:
        case, detail = await compare(engine, group, options.pairs)
        share = detail["achieved_share"]
        assert isinstance(share, float)
        cases.append(case)
        details[case.name] = detail
        checks[f"{case.name}: {share:.0%} of the FLOP ratio {detail['flop_ratio']}, required {REQUIRED_SHARE:.0%}"] = (
            share >= REQUIRED_SHARE
        )
    title = f"Training one group, prompt computed once (packed) or for each row (padded); {engine.dtype}"
    await engine.close()
    return Result(title=title, peer="padded", cases=cases, details=details, checks=checks)


def shapes(text: str) -> list[Group]:
    """`P,S,G` groups separated by semicolons."""
    groups = []
    for part in text.split(";"):
        prompt, suffix, members = (int(n) for n in part.split(","))
        groups.append(Group(prompt=prompt, suffix=suffix, members=members))
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="auto", help="auto (chosen by measuring), float32 or bfloat16")
    parser.add_argument("--shapes", type=shapes, default="200,200,8;500,300,8;1000,300,8", help="P,S,G;P,S,G;...")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warn_when_busy()
    deliver(asyncio.run(run(options)), options.json)


if __name__ == "__main__":
    main()
