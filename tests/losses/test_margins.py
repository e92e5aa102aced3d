"""The plain numbers of held-out units are the tensor losses', and their slopes those of the scripted learner."""

import math
import random

import pytest
import torch

from agentrft.losses import LOSSES, DpoLoss, KtoStepLoss, LossBatch, SimpoLoss
from agentrft.losses.margins import unit_losses
from agentrft.testing.preference import preference_pulls
from agentrft.types import Row

SPECS = [
    DpoLoss(),
    DpoLoss(nll_coef=0.7),
    DpoLoss(beta=3.0, length_normalised=True, nll_coef=0.2),
    SimpoLoss(),
    KtoStepLoss(reference_kl=0.4, undesirable_weight=1.3),
]


def random_rows(loss, units=7):
    """Rows of 1 to 6 trained tokens with random log-probs, and the policy's; the last rows lie far apart."""
    rng = random.Random(3)
    rows, log_probs = [], []
    for unit in range(units):
        signs = [rng.choice((1, -1))] if loss.type == "kto" else [1, -1]
        for sign in signs:
            trained = [False, *(True for _ in range(rng.randint(1, 6)))]
            spread = 300.0 if unit == units - 1 else 2.0
            values = [[-rng.random() * spread if mark else 0.0 for mark in trained] for _ in range(2)]
            row = Row(
                ids=[5] * len(trained),
                trained=trained,
                log_probs=[0.0] * len(trained),
                credit=[1 / units if mark else 0.0 for mark in trained],
                unit=f"u{unit}",
                group="g",
                reference_log_probs=values[1],
                sign=sign,
            )
            rows.append(row)
            log_probs.append(values[0])
    return rows, log_probs


def tensor_result(loss, rows, log_probs):
    terms = [(r, t) for r, row in enumerate(rows) for t, mark in enumerate(row.trained) if mark]
    units = list(dict.fromkeys(row.unit for row in rows))

    def column(values):
        return torch.tensor(values, dtype=torch.float64)

    leaf = column([log_probs[r][t] for r, t in terms]).requires_grad_()
    batch = LossBatch(
        log_probs=leaf,
        generator_log_probs=torch.zeros_like(leaf),
        credit=column([rows[r].credit[t] for r, t in terms]),
        row=torch.tensor([r for r, _ in terms]),
        reference_log_probs=column([rows[r].reference_log_probs[t] for r, t in terms]),
        unit=torch.tensor([units.index(row.unit) for row in rows]),
        sign=column([row.sign for row in rows]),
    )
    result = LOSSES[loss.type](batch, loss)
    result.loss.backward()
    return result, dict(zip(terms, leaf.grad.tolist(), strict=True))


@pytest.mark.parametrize("loss", SPECS, ids=lambda loss: f"{loss.type}-{loss.beta}")
def test_plain_numbers_are_the_tensors(loss):
    rows, log_probs = random_rows(loss)
    found = unit_losses(loss, rows, log_probs)
    result, _ = tensor_result(loss, rows, log_probs)
    assert math.fsum(one.loss for one in found) / 7 == pytest.approx(result.loss.item(), rel=1e-9)
    assert math.fsum(one.margin for one in found) == pytest.approx(result.metrics["margin"].item(), rel=1e-9)
    assert sum(one.margin > 0 for one in found) == result.metrics["preferred"].item()


@pytest.mark.parametrize("loss", SPECS, ids=lambda loss: f"{loss.type}-{loss.beta}")
def test_slopes_by_hand_are_autograds(loss):
    rows, log_probs = random_rows(loss)
    sums = dict.fromkeys(("tokens", "loss", "units", "preferred", "margin", "nll_preferred"), 0.0)
    pulls = preference_pulls(loss, rows, log_probs, sums)
    result, slopes = tensor_result(loss, rows, log_probs)
    assert all(slopes[r, t] == pytest.approx(-pulls[r], rel=1e-9, abs=1e-15) for r, t in slopes)
    assert sums["loss"] == pytest.approx(result.loss.item(), rel=1e-9)
    metrics = {name: value.item() for name, value in result.metrics.items()}
    assert {name: sums[name] for name in metrics} == pytest.approx(metrics, rel=1e-6)


def test_far_apart_rows_stay_finite():
    # margin 0.1·(−800 − 0) = −80, and 1000·0.1: no overflow either way
    row = Row(
        ids=[1, 2], trained=[False, True], log_probs=[0.0] * 2, credit=[0.0, 1.0], unit="u", group="g", sign=1,
        reference_log_probs=[0.0, 0.0],
    )  # fmt: skip
    other = Row(
        ids=[1, 2], trained=[False, True], log_probs=[0.0] * 2, credit=[0.0, 1.0], unit="u", group="g", sign=-1,
        reference_log_probs=[0.0, 0.0],
    )  # fmt: skip
    (far,) = unit_losses(DpoLoss(), [row, other], [[0.0, -800.0], [0.0, 0.0]])
    assert far.loss == pytest.approx(80.0)
    (sure,) = unit_losses(DpoLoss(), [row, other], [[0.0, 0.0], [0.0, -1000.0]])
    assert 0 <= sure.loss < 1e-40
