"""What all presets of reinforcement have in common (algorithms.md, section 10), and where each one differs."""

import itertools
import math
from itertools import chain

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from agentrft.credit import CREDIT, RewardScale
from agentrft.losses import LOSSES, LossBatch, PolicyLossSpec, row_divisors, scaled_credit

SPEC = TypeAdapter(PolicyLossSpec)
PRESETS = ["pg_tv", "grpo", "dapo", "dr_grpo", "rloo", "cispo", "gspo", "maxrl", "reinforce_pp", "sapo"]
CORRECTIONS = {
    **dict.fromkeys(["pg_tv", "cispo", "maxrl", "sapo"], ("token_mask", "sequence_band")),
    **dict.fromkeys(["gspo", "rloo"], ("sequence_band",)),
    **dict.fromkeys(
        ["grpo", "dapo", "dr_grpo", "reinforce_pp"],
        ("token_truncation", "token_mask", "sequence_truncation", "sequence_mask", "sequence_band"),
    ),
}
LN = math.log


def spec(preset, **options):
    return SPEC.validate_python({"type": preset, **options})


def advantages(loss, rewards_I_G, tokens_I_G):
    credit_I_G = [CREDIT[loss.credit or "group_mean"](rewards_G) for rewards_G in rewards_I_G]
    if loss.scale == "run":
        scale = RewardScale().updated(rewards_I_G, credit_I_G)
        return [scale.advantages(credit_G) for credit_G in credit_I_G]
    return scaled_credit(loss.scale, rewards_I_G, credit_I_G, tokens_I_G)


def run(loss, log_probs, generator, credit, row):
    leaf = torch.as_tensor(log_probs, dtype=torch.float64).clone().requires_grad_()
    batch = LossBatch(
        log_probs=leaf,
        generator_log_probs=torch.as_tensor(generator, dtype=torch.float64),
        credit=torch.as_tensor(credit, dtype=torch.float64),
        row=torch.as_tensor(row),
    )
    result = LOSSES[loss.type](batch, loss)
    result.loss.backward()
    return result, leaf.grad


def random_step(seed=0, rows=12, noise=0.3):
    """(log_probs, generator, credit, row) of rows of unequal lengths, token by token."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (rows,), generator=rng)
    row = torch.arange(rows).repeat_interleave(lengths)
    log_probs = -3 * torch.rand(len(row), generator=rng, dtype=torch.float64)
    generator = log_probs + noise * torch.randn(len(row), generator=rng, dtype=torch.float64)
    credit = torch.randn(rows, generator=rng, dtype=torch.float64)[row] / len(row)
    return log_probs, generator, credit, row


def test_there_are_ten_presets_and_each_has_a_loss():
    assert set(PRESETS) <= LOSSES.keys()
    assert {spec(preset).type for preset in PRESETS} == set(PRESETS)
    assert SPEC.validate_python({}) == spec("pg_tv")


@pytest.mark.parametrize("preset", PRESETS)
def test_on_policy_the_gradient_is_reinforce(preset):
    log_probs, _, credit, row = random_step()
    result, gradient = run(spec(preset), log_probs, log_probs, credit, row)
    assert gradient.tolist() == pytest.approx((-credit).tolist(), rel=1e-12)
    assert result.metrics["masked_frac"] == 0
    assert result.metrics["kl_mu_k3"] == 0
    tokens = float(len(row))
    assert result.metrics["weight"] == pytest.approx(tokens)
    assert result.metrics["weight_sq"] == pytest.approx(tokens)


@pytest.mark.parametrize(("preset", "correction"), [(p, c) for p in PRESETS for c in CORRECTIONS[p]])
def test_on_policy_no_correction_changes_anything(preset, correction):
    log_probs, _, credit, row = random_step()
    _, gradient = run(spec(preset, correction={"type": correction}), log_probs, log_probs, credit, row)
    assert gradient.tolist() == pytest.approx((-credit).tolist(), rel=1e-12)


@pytest.mark.parametrize("pieces", [2, 4, 12])
@pytest.mark.parametrize(("preset", "correction"), [(p, c) for p in PRESETS for c in (None, *CORRECTIONS[p])])
def test_micro_batches_and_packing_change_nothing(preset, correction, pieces):
    loss = spec(preset, correction=correction and {"type": correction})
    log_probs, generator, credit, row = random_step()
    whole, gradient = run(loss, log_probs, generator, credit, row)
    total, sums = 0.0, dict.fromkeys(whole.metrics, 0.0)
    for piece in range(pieces):
        # Rows dealt out in turn, and numbered anew from 0 in each micro-batch, last row first.
        chosen = [r for r in range(12) if r % pieces == piece][::-1]
        at = torch.cat([torch.nonzero(row == r).view(-1) for r in chosen])
        own = torch.cat([torch.full((int((row == r).sum()),), i) for i, r in enumerate(chosen)])
        part, part_gradient = run(loss, log_probs[at], generator[at], credit[at], own)
        assert part_gradient.tolist() == pytest.approx(gradient[at].tolist(), rel=1e-9, abs=1e-12)
        total += part.loss.item()
        sums = {name: sums[name] + value.item() for name, value in part.metrics.items()}
    assert total == pytest.approx(whole.loss.item())
    assert sums == pytest.approx({name: value.item() for name, value in whole.metrics.items()}, rel=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_group_that_is_all_alike_teaches_nothing(preset):
    for reward in (0.0, 1.0, 0.1, -0.7):
        advantages_I_G = advantages(spec(preset), [[reward] * 5, [reward] * 5], [[3, 1, 4, 1, 5]] * 2)
        assert list(chain.from_iterable(advantages_I_G)) == pytest.approx([0.0] * 10, abs=1e-9)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_member_without_a_reward_is_in_no_baseline_and_gets_nothing(preset):
    loss = spec(preset)
    with_gap = advantages(loss, [[1.0, None, 0.0], [0.2, 0.6, 0.9]], [[3, 50, 2], [2, 2, 2]])
    without = advantages(loss, [[1.0, 0.0], [0.2, 0.6, 0.9]], [[3, 2], [2, 2, 2]])
    assert with_gap[0][1] == 0.0
    assert [with_gap[0][0], with_gap[0][2]] == pytest.approx(without[0])
    assert with_gap[1] == pytest.approx(without[1])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_single_member_gets_nothing_beside_others(preset):
    # reinforce_pp alone takes the mean of the batch from it: (0 − mean)/deviation.
    [alone], _ = advantages(spec(preset), [[1.0], [0.0, 1.0]], [[2], [2, 2]])
    assert alone == 0.0


@pytest.mark.parametrize("preset", PRESETS)
def test_an_affine_change_of_the_reward(preset):
    # R → 3R + 2. Scaled presets do not notice (grpo's 10⁻⁴ beside the deviation does, a little); unscaled ones take
    # the factor; maxrl compares with the mean itself, and so it feels the shift: (3R + 2 − 3m − 2) / (3m + 2).
    loss, tokens = spec(preset), [[3, 1, 2, 4]]
    before = advantages(loss, [[0.1, 0.4, 0.7, 0.4]], tokens)[0]
    after = advantages(loss, [[2.3, 3.2, 4.1, 3.2]], tokens)[0]
    factor = {"none": 3.0, "group_mean": 3 * 0.4 / (3 * 0.4 + 2)}.get(loss.scale, 1.0)
    assert after == pytest.approx([factor * value for value in before], rel=1e-3, abs=1e-9)
    assert any(before)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("gap", [-200.0, 200.0, -math.inf, 1e-300])
def test_absurd_mismatch_stays_finite(preset, gap):
    for correction in (None, *CORRECTIONS[preset]):
        loss = spec(preset, correction=correction and {"type": correction})
        generator = torch.tensor([-0.5 - gap, -0.5 + gap, -1.0, -1.0]).clamp(max=0)
        for credit in ([1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]):
            result, gradient = run(loss, [-0.5, -0.5, -1.0, -80.0], generator, credit, [0, 0, 1, 1])
            assert torch.isfinite(result.loss)
            assert bool(torch.isfinite(gradient).all())
            assert all(bool(torch.isfinite(value)) and not value.requires_grad for value in result.metrics.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_without_tokens_there_is_no_loss(preset):
    for correction in (None, *CORRECTIONS[preset]):
        loss = spec(preset, correction=correction and {"type": correction})
        result, _ = run(loss, [], [], [], torch.zeros(0, dtype=torch.int64))
        assert result.loss == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_options_of_other_presets_are_refused(preset):
    own = set(type(spec(preset)).model_fields)
    every = set(chain.from_iterable(type(spec(other)).model_fields for other in PRESETS))
    for option in sorted(every - own):
        with pytest.raises(ValidationError) as caught:
            spec(preset, **{option: 0.5})
        [error] = caught.value.errors()
        assert (error["type"], error["loc"]) == ("extra_forbidden", (preset, option))


@pytest.mark.parametrize("preset", PRESETS)
def test_corrections_that_a_preset_has_no_use_for_are_refused(preset):
    every = set(chain.from_iterable(CORRECTIONS.values()))
    for correction in sorted(every - set(CORRECTIONS[preset])):
        with pytest.raises(ValidationError):
            spec(preset, correction={"type": correction})


@pytest.mark.parametrize("preset", PRESETS)
def test_every_option_takes_effect(preset):
    # Two specs that differ in one option give different gradients or credit on the same step.
    changed = {
        "mask_delta": 0.02, "weight_cap": 1.1, "clip_low": 0.05, "clip_high": 0.05, "row_tokens": 7, "kl_coef": 0.5,
        "temperature_positive": 3.0, "temperature_negative": 3.0, "correction": {"type": "sequence_band"},
    }  # fmt: skip
    log_probs, generator, credit, row = random_step(noise=0.1 if preset != "rloo" else 0.05)
    _, plain = run(spec(preset), log_probs, generator, credit, row)
    tokens = [int((row == r).sum()) for r in range(12)]
    for option in set(type(spec(preset)).model_fields) - {"type"}:
        other = spec(preset, **{option: changed[option]})
        _, gradient = run(other, log_probs, generator, credit, row)
        assert (
            not torch.equal(gradient, plain)
            or row_divisors(other, tokens) != row_divisors(spec(preset), tokens)
            or other.reward_kl_coef != spec(preset).reward_kl_coef
        ), option


def test_what_each_preset_declares():
    # The table of docs/losses.md.
    declared = {p: (spec(p).credit, spec(p).scale, spec(p).normaliser) for p in PRESETS}
    assert declared == {
        "pg_tv": (None, "run", "token_mean"),
        "grpo": (None, "group_std", "row_mean"),
        "dapo": (None, "group_std", "token_mean"),
        "dr_grpo": (None, "none", "row_sum"),
        "rloo": ("leave_one_out", "none", "row_sum"),
        "cispo": (None, "group_std", "token_mean"),
        "gspo": (None, "group_std", "row_mean"),
        "maxrl": ("group_mean", "group_mean", "token_mean"),
        "reinforce_pp": ("group_mean", "batch", "token_mean"),
        "sapo": (None, "group_std", "row_mean"),
    }
    assert all(loss.credit in (None, *CREDIT) for loss in map(spec, PRESETS))


# One token each, μ = 0.5, against gradients −weight·credit worked by hand.
# ρ = π/μ:      0.5   0.9   1.0   1.5
SHIFTED = [0.25, 0.45, 0.5, 0.75]


@pytest.mark.parametrize(
    ("preset", "up", "down"),
    [
        # credit +1: no gradient above 1.2; credit −1: none below 0.8
        ("grpo", [-0.5, -0.9, -1.0, 0.0], [0.0, 0.9, 1.0, 1.5]),
        ("dr_grpo", [-0.5, -0.9, -1.0, 0.0], [0.0, 0.9, 1.0, 1.5]),
        ("reinforce_pp", [-0.5, -0.9, -1.0, 0.0], [0.0, 0.9, 1.0, 1.5]),
        ("dapo", [-0.5, -0.9, -1.0, 0.0], [0.0, 0.9, 1.0, 1.5]),
        ("rloo", [-0.5, -0.9, -1.0, 0.0], [0.0, 0.9, 1.0, 1.5]),
        # 0.75 − 0.5 = 0.25 and 0.25 − 0.5 = −0.25 exceed 0.2
        ("maxrl", [-0.5, -0.9, -1.0, 0.0], [0.0, 0.9, 1.0, 1.5]),
        ("pg_tv", [-0.5, -0.9, -1.0, 0.0], [0.0, 0.9, 1.0, 1.5]),
        ("cispo", [-0.5, -0.9, -1.0, -1.5], [0.5, 0.9, 1.0, 1.5]),
        # clipped at 1.0004 and 0.9997
        ("gspo", [-0.5, -0.9, -1.0, 0.0], [0.0, 0.0, 1.0, 1.5]),
        # ρ·sech²(τ(ρ−1)/2): τ = 1: 0.5·0.940015, 0.9·0.997504, 1, 1.5·0.940015; τ = 1.05: 0.5·0.934140,
        # 0.9·0.997249, 1, 1.5·0.934140
        ("sapo", [-0.4700074, -0.8977538, -1.0, -1.4100223], [0.4670699, 0.8975239, 1.0, 1.4012097]),
    ],
)
def test_gradients_by_hand(preset, up, down):
    log_probs, generator = [LN(p) for p in SHIFTED], [LN(0.5)] * 4
    for credit, expected in ((1.0, up), (-1.0, down)):
        _, gradient = run(spec(preset), log_probs, generator, [credit] * 4, range(4))
        assert gradient.tolist() == pytest.approx(expected, rel=1e-6)


def test_dapo_clips_later_upwards():
    # ρ = 1.25 lies between grpo's 1.2 and dapo's 1.28
    step = ([LN(0.625)], [LN(0.5)], [1.0], [0])
    assert run(spec("grpo"), *step)[1].item() == 0.0
    assert run(spec("dapo"), *step)[1].item() == pytest.approx(-1.25)


def test_gspo_takes_the_geometric_and_rloo_the_whole_ratio():
    # Ratios 2 and 0.9 in one row: √1.8 = 1.3416408 and 1.8; credits may differ in a row.
    step = ([LN(0.5), LN(0.45)], [LN(0.25), LN(0.5)], [1.0, 0.5], [0, 0])
    wide = {"clip_low": 0.9, "clip_high": 9.0}
    assert run(spec("gspo", **wide), *step)[1].tolist() == pytest.approx([-1.3416408, -0.6708204])
    assert run(spec("rloo", **wide), *step)[1].tolist() == pytest.approx([-1.8, -0.9])


def test_the_effective_sample_size():
    # Weights 1 and 3: (1 + 3)² / (2·(1 + 9)) = 0.8
    result, _ = run(spec("cispo"), [LN(0.25), LN(0.75)], [LN(0.25), LN(0.25)], [1.0, 1.0], [0, 1])
    weight, weight_sq = (result.metrics[name].item() / 2 for name in ("weight", "weight_sq"))
    assert weight**2 / weight_sq == pytest.approx(0.8)


def test_the_order_of_tokens_from_different_rows_does_not_matter():
    log_probs, generator, credit, row = random_step()
    at = torch.randperm(len(row), generator=torch.Generator().manual_seed(3))
    for preset in PRESETS:
        _, gradient = run(spec(preset), log_probs, generator, credit, row)
        _, shuffled = run(spec(preset), log_probs[at], generator[at], credit[at], row[at])
        assert shuffled.tolist() == pytest.approx(gradient[at].tolist())


def test_presets_differ_off_policy():
    # Presets that share a formula differ in credit or normaliser; two that were the same would be one too many.
    log_probs, generator, _, row = random_step(noise=0.2)
    rewards, tokens = [[0.9, 0.1, 0.4, 0.4]] * 3, [int((row == r).sum()) for r in range(12)]
    whole = {}
    for preset in PRESETS:
        loss = spec(preset)
        groups = [tokens[i : i + 4] for i in (0, 4, 8)]
        own_R = list(chain.from_iterable(advantages(loss, rewards, groups)))
        per_token_R = [a / d for a, d in zip(own_R, row_divisors(loss, tokens), strict=True)]
        whole[preset] = run(loss, log_probs, generator, torch.tensor(per_token_R)[row], row)[1]
    for one, other in itertools.combinations(PRESETS, 2):
        assert not torch.allclose(whole[one], whole[other], rtol=1e-4), (one, other)
