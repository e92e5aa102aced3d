import math

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from agentrft.losses import LOSSES, DpoLoss, KtoLoss, KtoStepLoss, LossBatch, PreferenceLossSpec, SimpoLoss

SPECS = [
    DpoLoss(),
    DpoLoss(nll_coef=0.7),
    DpoLoss(beta=3.0, length_normalised=True),
    SimpoLoss(),
    KtoStepLoss(reference_kl=0.4, undesirable_weight=1.3),
]


def run(loss, log_probs, reference, row, unit, sign, weight=None):
    leaf = torch.as_tensor(log_probs, dtype=torch.float64).clone().requires_grad_()
    units = max(unit) + 1
    batch = LossBatch(
        log_probs=leaf,
        generator_log_probs=torch.zeros_like(leaf),
        credit=torch.full_like(leaf, 1 / units if weight is None else weight),
        row=torch.as_tensor(row, dtype=torch.int64),
        reference_log_probs=None if reference is None else torch.as_tensor(reference, dtype=torch.float64),
        unit=torch.tensor(unit),
        sign=torch.tensor(sign),
    )
    result = LOSSES[loss.type](batch, loss)
    result.loss.backward()
    return result, leaf.grad.tolist()


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# Preferred row of two tokens, rejected row of one: Σ log π − log π_ref = 0.5 and −0.3, means 0.25 and −0.3.
PAIR = {
    "log_probs": [-1.0, -0.5, -2.0],
    "reference": [-1.2, -0.8, -1.7],
    "row": [0, 0, 1],
    "unit": [0, 0],
    "sign": [1, -1],
}


def test_dpo_by_hand():
    # margin 0.5·(0.5 + 0.3) = 0.4: −ln σ(0.4) = 0.5130153; gradient ∓β·(1 − σ(0.4)) = ∓0.5·0.4013123
    result, gradient = run(DpoLoss(beta=0.5), **PAIR)
    assert result.loss.item() == pytest.approx(0.5130153)
    assert gradient == pytest.approx([-0.2006562, -0.2006562, 0.2006562])
    metrics = {name: value.item() for name, value in result.metrics.items()}
    assert metrics == pytest.approx({"tokens": 3, "units": 1, "preferred": 1, "margin": 0.4, "nll_preferred": 0.75})


def test_dpo_with_nll_by_hand():
    # + 2·0.75, and −2/2 on each of the preferred row's two tokens
    result, gradient = run(DpoLoss(beta=0.5, nll_coef=2.0), **PAIR)
    assert result.loss.item() == pytest.approx(0.5130153 + 1.5)
    assert gradient == pytest.approx([-1.2006562, -1.2006562, 0.2006562])


def test_length_normalised_dpo_by_hand():
    # margin 2·(0.25 + 0.3) = 1.1; gradient −2·(1 − σ(1.1))/2 on two tokens, +2·(1 − σ(1.1)) on one
    result, gradient = run(DpoLoss(beta=2.0, length_normalised=True), **PAIR)
    assert result.loss.item() == pytest.approx(-math.log(sigmoid(1.1)))
    assert gradient == pytest.approx([-sigmoid(-1.1), -sigmoid(-1.1), 2 * sigmoid(-1.1)])


def test_simpo_by_hand_and_without_a_reference():
    # margin 2·(−0.75 + 2) − 1 = 1.5
    result, gradient = run(SimpoLoss(), **{**PAIR, "reference": None})
    assert result.loss.item() == pytest.approx(-math.log(sigmoid(1.5)))
    assert gradient == pytest.approx([-sigmoid(-1.5), -sigmoid(-1.5), 2 * sigmoid(-1.5)])


def test_kto_by_hand():
    # Desirable 0.5·(0.5 − 0.2) = 0.15, undesirable −0.5·(−0.3 − 0.2) = 0.25: (1 − σ(0.15)) + 3·(1 − σ(0.25)), halved
    loss = KtoStepLoss(beta=0.5, undesirable_weight=3.0, reference_kl=0.2)
    result, gradient = run(loss, **{**PAIR, "unit": [0, 1]})
    assert result.loss.item() == pytest.approx((sigmoid(-0.15) + 3 * sigmoid(-0.25)) / 2)
    good, bad = (sigmoid(x) * sigmoid(-x) * 0.5 / 2 for x in (0.15, 0.25))
    assert gradient == pytest.approx([-good, -good, 3 * bad])
    assert result.metrics["preferred"] == 2


@pytest.mark.parametrize("loss", SPECS, ids=str)
@pytest.mark.parametrize("pieces", [2, 3])
def test_micro_batches_add_up(loss, pieces):
    rng = torch.Generator().manual_seed(5)
    pairs = 6
    sign, unit = [1, -1] * pairs, [pair for pair in range(pairs) for _ in range(2)]
    lengths = torch.randint(1, 6, (2 * pairs,), generator=rng)
    row = torch.arange(2 * pairs).repeat_interleave(lengths)
    log_probs = -2 * torch.rand(len(row), generator=rng, dtype=torch.float64)
    reference = log_probs + 0.4 * torch.randn(len(row), generator=rng, dtype=torch.float64)
    if loss.type == "kto":
        unit = list(range(2 * pairs))
    weight = 1 / (max(unit) + 1)
    whole, gradient = run(loss, log_probs, reference, row, unit, sign, weight)
    total, sums = 0.0, dict.fromkeys(whole.metrics, 0.0)
    for piece in range(pieces):
        rows = [r for pair in range(pairs) if pair % pieces == piece for r in (2 * pair + 1, 2 * pair)]
        at = torch.cat([torch.nonzero(row == r).view(-1) for r in rows])
        own_row = [rows.index(r) for r in row[at].tolist()]
        old = sorted({unit[r] for r in rows})
        own_unit = [old.index(unit[r]) for r in rows]
        part, part_gradient = run(
            loss, log_probs[at], reference[at], own_row, own_unit, [sign[r] for r in rows], weight
        )
        assert part_gradient == pytest.approx([gradient[i] for i in at.tolist()], rel=1e-9)
        total += part.loss.item()
        sums = {name: sums[name] + value.item() for name, value in part.metrics.items()}
    assert total == pytest.approx(whole.loss.item())
    assert sums == pytest.approx({name: value.item() for name, value in whole.metrics.items()})


@pytest.mark.parametrize("loss", SPECS, ids=str)
@pytest.mark.parametrize("row", [[0, 0, 0], [1, 1, 1]])
def test_a_row_without_trained_tokens_is_a_sum_of_nothing(loss, row):
    # A row that ends where the pair's shared prefix does: the other one is compared with 0.
    unit = [0, 1] if loss.type == "kto" else [0, 0]
    result, gradient = run(loss, **{**PAIR, "row": row, "unit": unit})
    assert math.isfinite(result.loss.item())
    assert all(math.isfinite(value) and value != 0 for value in gradient)
    assert all((value < 0) == (row[0] == 0) for value in gradient)


@pytest.mark.parametrize("loss", SPECS, ids=str)
@pytest.mark.parametrize("gap", [1e4, -1e4])
def test_absurd_distances_stay_finite(loss, gap):
    log_probs = [-1.0, -1.0 - max(gap, 0), -1.0 + min(gap, 0)]
    result, gradient = run(loss, **{**PAIR, "log_probs": log_probs, "unit": [0, 1] if loss.type == "kto" else [0, 0]})
    assert math.isfinite(result.loss.item())
    assert all(map(math.isfinite, gradient))


@pytest.mark.parametrize("sign", [[1, 1], [-1, -1], [0, 1]])
def test_a_unit_that_is_no_pair_is_a_bug(sign):
    for loss in (DpoLoss(), SimpoLoss()):
        with pytest.raises(ValueError, match="a pair is one row with sign"):
            run(loss, **{**PAIR, "sign": sign})


def test_a_missing_reference_is_a_bug():
    with pytest.raises(ValueError, match="reference_log_probs"):
        run(DpoLoss(), **{**PAIR, "reference": None})


def test_the_type_chooses_and_other_options_are_refused():
    spec = TypeAdapter(PreferenceLossSpec)
    assert spec.validate_python({"type": "kto"}) == KtoLoss()
    for document in ({"type": "simpo", "nll_coef": 1}, {"type": "dpo", "margin": 1}, {"type": "kto", "margin": 1}):
        with pytest.raises(ValidationError):
            spec.validate_python(document)


def test_a_job_cannot_write_what_a_step_measures():
    with pytest.raises(ValidationError):
        TypeAdapter(PreferenceLossSpec).validate_python({"type": "kto", "reference_kl": 0.1})
    step = KtoStepLoss.of(KtoLoss(beta=0.3, undesirable_weight=2.0), 0.7)
    assert (step.type, step.beta, step.undesirable_weight, step.reference_kl) == ("kto", 0.3, 2.0, 0.7)
