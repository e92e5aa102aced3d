import math

import pytest
import torch

from agentrft.losses.correction import correction_factor
from agentrft.losses.spec import SequenceBand, SequenceMask, SequenceTruncation, TokenMask, TokenTruncation

# Ratios of two rows: 2 · 0.8 = 1.6, and 0.4 · 5 · 2 = 4; geometric means √1.6 = 1.265 and ∛4 = 1.587.
RATIOS = [2.0, 0.8, 0.4, 5.0, 2.0]
ROW = torch.tensor([0, 0, 1, 1, 1])


def weights(correction, ratios=RATIOS, row=ROW):
    """w = ρ·factor of each token."""
    ratio = torch.tensor(ratios, dtype=torch.float64)
    return (ratio * correction_factor(ratio.log(), row, correction)).tolist()


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        (None, RATIOS),
        (TokenTruncation(type="token_truncation", cap=1.5), [1.5, 0.8, 0.4, 1.5, 1.5]),
        (TokenMask(type="token_mask", low=0.5, high=2.5), [2.0, 0.8, 0.0, 0.0, 2.0]),
        (SequenceTruncation(type="sequence_truncation", cap=3.0), [1.6, 1.6, 3.0, 3.0, 3.0]),
        (SequenceMask(type="sequence_mask", cap=3.0), [1.6, 1.6, 0.0, 0.0, 0.0]),
        (SequenceBand(type="sequence_band", low=0.9, high=1.3), [2.0, 0.8, 0.0, 0.0, 0.0]),
        (SequenceBand(type="sequence_band", low=0.9, high=1.6), RATIOS),
        (SequenceBand(type="sequence_band", low=0.9, high=1.6, min_ratio=0.5), [2.0, 0.8, 0.0, 0.0, 0.0]),
    ],
)
def test_weights_by_hand(correction, expected):
    assert weights(correction) == pytest.approx(expected)


def test_the_bounds_themselves_are_inside():
    # Powers of two: their logarithms and back are exact enough to stay on the bound.
    assert weights(TokenMask(type="token_mask", low=0.5, high=2.0), [0.5, 1.0], ROW[:2]) == pytest.approx([0.5, 1.0])
    assert weights(SequenceMask(type="sequence_mask", cap=1.0), [1.0, 1.0], ROW[:2]) == [1.0, 1.0]


def test_a_long_row_does_not_overflow():
    # (e^1)^5000: the product is cut off at e^20 before exp, and then exceeds every cap.
    row = torch.zeros(5000, dtype=torch.int64)
    ratio_log = torch.ones(5000)
    truncated = correction_factor(ratio_log, row, SequenceTruncation(type="sequence_truncation", cap=5.0))
    assert truncated.tolist() == pytest.approx([5 / math.e] * 5000)
    assert not correction_factor(ratio_log, row, SequenceMask(type="sequence_mask")).any()


def test_the_factor_has_no_gradient():
    ratio_log = torch.tensor([0.1, 0.5], requires_grad=True)
    assert not correction_factor(ratio_log, ROW[:2], TokenTruncation(type="token_truncation")).requires_grad
