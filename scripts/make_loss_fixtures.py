"""Write tests/losses/fixtures/trl.json: what TRL's own trainers compute on random batches.

Run it in the environment that `python benchmarks/environments.py trl` makes (TRL 1.16.0, CPU):

    ~/.cache/agentrft-bench/trl/bin/python scripts/make_loss_fixtures.py

Nothing of TRL is written down again here. Its `_compute_loss` methods run unbound on a stand-in for the trainer whose
forward pass is a table of log-probs; its advantages and importance ratios are statements in the middle of
`_generate_and_score_completions`, which are cut out of the installed source and run as they are. Everything is
float64, inputs are rounded before use, `gradient` is with respect to `log_probs`.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import sys
import textwrap
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RLOOTrainer
from trl.experimental.cpo import CPOTrainer

TARGET = Path(__file__).parents[1] / "tests" / "losses" / "fixtures" / "trl.json"
TRL = "1.16.0"
ROWS, MEMBERS, TOKENS = 8, 4, 6
WIDE = {"clip_low": 0.999, "clip_high": 1e6}
"""No clip acts: TRL's ratio is to a recomputed policy and its correction apart, ours is the product of the two."""

Case = dict[str, Any]


def main() -> None:
    if version("trl") != TRL:
        raise SystemExit(f"found TRL {version('trl')}, expected {TRL}; run benchmarks/environments.py trl")
    torch.set_default_dtype(torch.float64)
    policy = [
        policy_case(name, loss, settings, seed) for seed, (name, loss, settings) in enumerate(POLICY_CASES, start=1)
    ]
    document = {
        "made_with": {"trl": TRL, "torch": torch.__version__},
        "advantages": [advantage_case(kind, rewards) for kind in ADVANTAGE_KINDS for rewards in REWARDS],
        "policy": policy,
        "preference": [*(dpo_case(*case) for case in DPO_CASES), simpo_case(31), kto_case(32, 0.5), kto_case(33, -0.5)],
    }
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{TARGET}: {TARGET.stat().st_size} bytes", file=sys.stderr)


# --- advantages -------------------------------------------------------------------------------------------------

ADVANTAGE_KINDS = {"group_std": "group", "none": "none", "leave_one_out": None}
REWARDS: list[list[list[float | None]]] = [
    [[1.0, 0.0, 0.0, 1.0], [0.3, 0.9, -0.2, 0.5]],
    [[1.0, None, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]],
    [[None, None, 0.7, 0.1], [None, 2.0, None, None]],
]


def advantage_case(kind: str, rewards: list[list[float | None]]) -> Case:
    values = [[math.nan if reward is None else reward for reward in group] for group in rewards]
    return {"kind": kind, "rewards": rewards, "advantages": trl_advantages(kind, values)}


def trl_advantages(kind: str, rewards: list[list[float]]) -> list[list[float]]:
    trainer = RLOOTrainer if kind == "leave_one_out" else GRPOTrainer
    stand_in = SimpleNamespace(
        reward_weights=torch.ones(1),
        reward_funcs=[None],
        multi_objective_aggregation="sum_then_normalize",
        scale_rewards=ADVANTAGE_KINDS[kind],
        reward_clip_range=None,
        normalize_advantages=False,
        beta=0.0,
    )
    scope = {
        "self": stand_in,
        "rewards_per_func": torch.tensor(rewards).view(-1, 1),
        "num_generations": MEMBERS,
        "device": "cpu",
    }
    run_statements(trainer, "unscorable_mask = ", "advantages = torch.nan_to_num", scope)
    return listed(scope["advantages"].view(-1, MEMBERS))


def run_statements(trainer: type, first: str, last: str, scope: dict[str, Any]) -> None:
    """Run TRL's statements from the one that starts with `first` to the one that starts with `last`."""
    function = trainer._generate_and_score_completions
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    tree = ast.parse(source)
    function_body = next(node.body for node in tree.body if isinstance(node, ast.FunctionDef))
    for block in [*(node.body for node in ast.walk(tree) if isinstance(node, ast.With)), function_body]:
        texts = [ast.get_source_segment(source, node) or "" for node in block]
        begin = next((i for i, text in enumerate(texts) if text.startswith(first)), None)
        end = next((i for i, text in enumerate(texts) if text.startswith(last)), None)
        if begin is not None and end is not None:
            module = ast.Module(body=block[begin : end + 1], type_ignores=[])
            exec(compile(module, trainer.__name__, "exec"), {**vars(sys.modules[trainer.__module__]), **scope}, scope)
            return
    raise SystemExit(f"{trainer.__name__} has no statements from {first!r} to {last!r}; is this TRL {TRL}?")


# --- policy losses ----------------------------------------------------------------------------------------------

POLICY_CASES: list[tuple[str, Case, Case]] = [
    ("grpo", {"type": "grpo"}, {"loss_type": "grpo", "clip": (0.2, 0.2)}),
    ("grpo on policy", {"type": "grpo"}, {"loss_type": "grpo", "clip": (0.2, 0.2), "noise": 0.0}),
    ("dapo", {"type": "dapo"}, {"loss_type": "dapo", "clip": (0.2, 0.28)}),
    ("dr_grpo", {"type": "dr_grpo", "row_tokens": 50}, {"loss_type": "dr_grpo", "clip": (0.2, 0.2), "kind": "none"}),
    ("cispo", {"type": "cispo", "weight_cap": 1.2}, {"loss_type": "cispo", "clip": (0.0, 1.2)}),
    ("gspo", {"type": "gspo"}, {"loss_type": "grpo", "clip": (3e-4, 4e-4), "level": "sequence", "noise": 4e-4}),
    ("gspo wide", {"type": "gspo", "clip_low": 0.1, "clip_high": 0.1},
     {"loss_type": "grpo", "clip": (0.1, 0.1), "level": "sequence"}),
    ("sapo", {"type": "sapo"}, {"loss_type": "sapo", "clip": (0.2, 0.2)}),
    ("rloo", {"type": "rloo"}, {"loss_type": None, "clip": (0.2, 0.2), "kind": "leave_one_out"}),
    ("token truncation", {"type": "dapo", **WIDE, "correction": {"type": "token_truncation", "cap": 1.2}},
     {"loss_type": "dapo", "clip": (0.2, 0.28), "mode": "token_truncate", "bounds": (None, 1.2)}),
    ("token mask", {"type": "dapo", **WIDE, "correction": {"type": "token_mask", "low": 0.8, "high": 1.2}},
     {"loss_type": "dapo", "clip": (0.2, 0.28), "mode": "token_mask", "bounds": (0.8, 1.2)}),
    ("sequence truncation", {"type": "dapo", **WIDE, "correction": {"type": "sequence_truncation", "cap": 1.2}},
     {"loss_type": "dapo", "clip": (0.2, 0.28), "mode": "sequence_truncate", "bounds": (None, 1.2)}),
    ("sequence mask", {"type": "dapo", **WIDE, "correction": {"type": "sequence_mask", "cap": 1.2}},
     {"loss_type": "dapo", "clip": (0.2, 0.28), "mode": "sequence_mask", "bounds": (None, 1.2)}),
]  # fmt: skip
"""Name, our spec, and what TRL is set to; `noise` is the deviation of log π − log μ."""


def policy_case(name: str, loss: Case, settings: Case, seed: int) -> Case:
    rng = torch.Generator().manual_seed(seed)
    mask = random_mask(rng, ROWS)
    leaf = rounded(-2 * torch.rand(ROWS, TOKENS, generator=rng)).requires_grad_()
    noise = settings.get("noise", 0.3) * torch.randn(ROWS, TOKENS, generator=rng)
    generator = rounded(leaf.detach() + noise, digits=6)
    rewards = rounded(torch.rand(ROWS // MEMBERS, MEMBERS, generator=rng))
    advantages = torch.tensor(trl_advantages(settings.get("kind", "group_std"), rewards.tolist())).view(-1)
    value = trl_policy_loss(settings, leaf, generator, mask, advantages, loss.get("row_tokens", 0))
    value.backward()
    return {
        "name": name,
        "loss": loss,
        "rewards": rewards.tolist(),
        "log_probs": ragged(leaf, mask),
        "generator_log_probs": ragged(generator, mask),
        "value": value.item(),
        "gradient": ragged(leaf.grad, mask),
    }


def trl_policy_loss(
    settings: Case, leaf: Tensor, generator: Tensor, mask: Tensor, advantages: Tensor, constant: int
) -> Tensor:
    inputs = {
        "prompt_ids": torch.zeros(ROWS, 1),
        "prompt_mask": torch.ones(ROWS, 1),
        "completion_ids": torch.zeros(ROWS, TOKENS),
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": generator,
        "old_logps": (generator * mask).sum(1),
        "num_items_in_batch": mask.sum(),
    }
    mode = settings.get("mode")
    stand_in = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (leaf, torch.zeros_like(leaf), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=settings.get("level", "token"),
        beta=0.0,
        loss_type=settings["loss_type"],
        epsilon_low=settings["clip"][0],
        epsilon_high=settings["clip"][1],
        args=SimpleNamespace(delta=None, sapo_temperature_pos=1.0, sapo_temperature_neg=1.05, steps_per_generation=1),
        use_vllm=mode is not None,
        vllm_importance_sampling_correction=mode is not None,
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=settings.get("bounds", (None, None))[0],
        vllm_importance_sampling_clip_max=settings.get("bounds", (None, None))[1],
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=constant,
        _entropy_bonus_enabled=False,
        accelerator=accelerator(),
        _metrics={"train": defaultdict(list)},
    )
    if mode:
        scope = {
            "self": stand_in,
            "old_per_token_logps": leaf.detach(),
            "sampling_per_token_logps": generator,
            "completion_mask": mask,
            "tool_mask": None,
        }
        start = "if self.use_vllm and self.vllm_importance_sampling_correction:"
        run_statements(GRPOTrainer, start, start, scope)
        inputs["importance_sampling_ratio"] = scope["vllm_importance_sampling_ratio"]
        inputs["old_per_token_logps"] = leaf.detach()
    trainer = GRPOTrainer if settings["loss_type"] else RLOOTrainer
    return trainer._compute_loss(stand_in, None, inputs)


# --- preference losses ------------------------------------------------------------------------------------------

DPO_CASES: list[tuple[str, Case, Case, bool]] = [
    ("dpo", {"type": "dpo"}, {"loss_types": ["sigmoid"], "loss_weights": [1.0], "beta": 0.1}, False),
    ("dpo normalised", {"type": "dpo", "beta": 2.0, "length_normalised": True},
     {"loss_types": ["sigmoid_norm"], "loss_weights": [1.0], "beta": 2.0}, False),
    ("dpo nll, equal lengths", {"type": "dpo", "nll_coef": 0.5},
     {"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5], "beta": 0.1}, True),
    ("dpo nll, other lengths", {"type": "dpo", "nll_coef": 0.5},
     {"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5], "beta": 0.1}, False),
]  # fmt: skip
"""Name, our spec, what TRL is set to, and whether all rows have the same length."""


def dpo_case(name: str, loss: Case, settings: Case, equal: bool) -> Case:
    rng = torch.Generator().manual_seed(20)
    mask = torch.ones(ROWS, TOKENS) if equal else random_mask(rng, ROWS)
    leaf, reference = random_pair(rng, ROWS)
    shifted = torch.cat([torch.zeros(ROWS, 1), mask], dim=1).long()
    reference_sums = (reference * mask).sum(1)
    inputs = {
        "input_ids": torch.zeros_like(shifted),
        "attention_mask": torch.ones_like(shifted),
        "completion_mask": shifted,
        "ref_chosen_logps": reference_sums[: ROWS // 2],
        "ref_rejected_logps": reference_sums[ROWS // 2 :],
    }
    stand_in = preference_stand_in(ld_alpha=None, f_divergence_type="reverse_kl", use_weighting=False, **settings)
    value = DPOTrainer._compute_loss(stand_in, forward(leaf, mask), inputs, False)
    value.backward()
    half = ROWS // 2
    return preference(name, loss, [1] * half + [-1] * half, [*range(half), *range(half)], leaf, reference, mask, value)


def simpo_case(seed: int) -> Case:
    rng = torch.Generator().manual_seed(seed)
    mask = random_mask(rng, ROWS)
    leaf, reference = random_pair(rng, ROWS)
    labels = torch.zeros(ROWS, TOKENS + 1, dtype=torch.int64).masked_fill(
        torch.cat([torch.zeros(ROWS, 1), mask], dim=1) == 0, -100
    )
    # Two words, the first of which has the log-prob we want; the last position predicts nothing.
    logits = torch.stack([leaf, torch.log1p(-leaf.exp())], dim=-1)
    logits = torch.cat([logits, torch.zeros(ROWS, 1, 2)], dim=1)
    means = CPOTrainer.get_batch_logps(logits, labels, average_log_prob=True)
    stand_in = preference_stand_in(alpha=0.0, loss_type="simpo", simpo_gamma=0.7, beta=2.5, label_smoothing=0.0)
    half = ROWS // 2
    value = CPOTrainer.cpo_loss(stand_in, means[:half], means[half:])[0].mean()
    value.backward()
    spec = {"type": "simpo", "beta": 2.5, "margin": 0.7}
    sign = [1] * half + [-1] * half
    return preference("simpo", spec, sign, [*range(half), *range(half)], leaf, reference, mask, value)


def kto_case(seed: int, drift: float) -> Case:
    """`drift` moves the policy on answers to other items away from the reference: z₀ above 0, or cut off at 0."""
    rng = torch.Generator().manual_seed(seed)
    mask, kl_mask = random_mask(rng, ROWS), random_mask(rng, ROWS)
    leaf, reference = random_pair(rng, ROWS)
    kl_leaf, kl_reference = (values.detach() for values in random_pair(rng, ROWS))
    kl_reference = rounded(kl_leaf - drift + (kl_reference - kl_leaf))
    sign = [1, -1, -1, 1, 1, -1, 1, 1]
    shifted, kl_shifted = (torch.cat([torch.zeros(ROWS, 1), m], dim=1).long() for m in (mask, kl_mask))
    inputs = {
        "input_ids": torch.zeros_like(shifted),
        "attention_mask": torch.ones_like(shifted),
        "completion_mask": shifted,
        "label": torch.tensor(sign) > 0,
        "KL_input_ids": torch.ones_like(kl_shifted),
        "KL_attention_mask": torch.ones_like(kl_shifted),
        "KL_completion_mask": kl_shifted,
        "ref_logps": (reference * mask).sum(1),
        "ref_KL_logps": (kl_reference * kl_mask).sum(1),
    }
    weights = {"desirable_weight": 1.0, "undesirable_weight": 1.33}
    stand_in = preference_stand_in(loss_type="kto", calculate_KL=True, beta=0.2, **weights)
    stand_in._compute_kl_logps = lambda model, batch: KTOTrainer._compute_kl_logps(stand_in, model, batch)
    ours, other = forward(leaf, mask), forward(kl_leaf, kl_mask)
    value = KTOTrainer._compute_loss(
        stand_in, lambda input_ids, **kwargs: (other if bool(input_ids.any()) else ours)(), inputs, False
    )
    value.backward()
    case = preference(
        "kto", {"type": "kto", "beta": 0.2, **weights}, sign, list(range(ROWS)), leaf, reference, mask, value
    )
    kl = {"kl_log_probs": ragged(kl_leaf, kl_mask), "kl_reference_log_probs": ragged(kl_reference, kl_mask)}
    return {**case, "name": f"kto, drift {drift}", **kl}


def preference(
    name: str,
    loss: Case,
    sign: list[int],
    unit: list[int],
    leaf: Tensor,
    reference: Tensor,
    mask: Tensor,
    value: Tensor,
) -> Case:
    return {
        "name": name,
        "loss": loss,
        "sign": sign,
        "unit": unit,
        "log_probs": ragged(leaf, mask),
        "reference_log_probs": ragged(reference, mask),
        "value": value.item(),
        "gradient": ragged(leaf.grad, mask),
    }


def preference_stand_in(**settings: Any) -> SimpleNamespace:
    return SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=accelerator(),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        _total_train_tokens=0,
        _tp_size=1,
        _metrics={"train": defaultdict(list)},
        **settings,
    )


def forward(leaf: Tensor, mask: Tensor) -> Any:
    """A model whose log-probs are given."""
    zeros = torch.zeros_like(mask)
    outputs = SimpleNamespace(
        log_probs=leaf * mask, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), log_sum_sq_probs=zeros
    )
    return lambda **kwargs: outputs


# --- shared -----------------------------------------------------------------------------------------------------


def accelerator() -> SimpleNamespace:
    def same(values: Any, **kwargs: Any) -> Any:
        return values

    return SimpleNamespace(
        num_processes=1, device=torch.device("cpu"), gather=same, gather_for_metrics=same, reduce=same
    )


def random_mask(rng: torch.Generator, rows: int) -> Tensor:
    lengths = torch.randint(1, TOKENS + 1, (rows, 1), generator=rng)
    return (torch.arange(TOKENS) < lengths).double()


def random_pair(rng: torch.Generator, rows: int) -> tuple[Tensor, Tensor]:
    leaf = rounded(-0.05 - 2 * torch.rand(rows, TOKENS, generator=rng)).requires_grad_()
    return leaf, rounded(leaf.detach() + 0.3 * torch.randn(rows, TOKENS, generator=rng))


def rounded(values: Tensor, digits: int = 4) -> Tensor:
    return torch.tensor([[round(value, digits) for value in row] for row in values.tolist()])


def ragged(values: Tensor | None, mask: Tensor) -> list[list[float]]:
    assert values is not None
    return [
        [round(value, 12) for value, there in zip(row, row_mask, strict=True) if there]
        for row, row_mask in zip(values.tolist(), mask.tolist(), strict=True)
    ]


def listed(values: Tensor) -> list[list[float]]:
    return [[round(value, 12) for value in row] for row in values.tolist()]


if __name__ == "__main__":
    main()
