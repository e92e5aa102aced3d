"""Draws follow the distribution, never leave it, and each row's depends on that row alone."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from agentrft.engines.torch_sampling import draw
from agentrft.errors import EngineFault

NEVER = float("-inf")
ONE_FLOAT = 2.0**-24


def draws(logits: list[float] | torch.Tensor, uniforms: list[float], temperature: float = 1.0) -> list[int]:
    """One token per uniform, all from the same logits."""
    rows = torch.as_tensor(logits).expand(len(uniforms), -1).clone()
    tokens, _ = draw(rows, torch.tensor(uniforms), torch.full((len(uniforms),), temperature))
    return tokens


def test_by_hand() -> None:
    # Weights 1 : 2 : 0 : 1, so the cumulative sum is ¼, ¾, ¾, 1.
    logits = [0.0, math.log(2), NEVER, 0.0]
    assert draws(logits, [0.0, 0.2499, 0.2501, 0.7499, 0.7501, 0.9999]) == [0, 0, 1, 1, 3, 3]


def test_log_probs_are_of_the_distribution_drawn_from() -> None:
    # Temperature ½ squares the weights: 1 : 4 : 1 of 6. Greedy takes the 2 of 4 and says so at temperature 1.
    logits = torch.tensor([[0.0, math.log(2), 0.0]] * 3)
    tokens, log_probs = draw(logits, torch.tensor([0.0, 0.5, 0.99]), torch.tensor([0.5, 0.5, 0.0]))
    assert tokens == [0, 1, 1]
    assert log_probs == pytest.approx([math.log(1 / 6), math.log(4 / 6), math.log(2 / 4)], abs=1e-6)


@pytest.mark.parametrize("size", [3, 255, 256, 257, 700])
@pytest.mark.parametrize("uniform", [0.0, ONE_FLOAT, 0.5, 1 - ONE_FLOAT, 1.0])
def test_a_token_without_probability_is_never_drawn(size: int, uniform: float) -> None:
    """Not at either end of the cumulative sum, not beside a block's border, not behind the vocabulary's end."""
    for possible in {0, 1, size // 2, size - 2, size - 1, min(255, size - 1), min(256, size - 1)}:
        logits = torch.full((size,), NEVER)
        logits[possible] = 3.0
        assert draws(logits, [uniform]) == [possible]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_frequencies_follow_the_distribution(temperature: float) -> None:
    size, n = 600, 40_000
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(size, generator=generator) * 1.5
    logits[torch.rand(size, generator=generator) < 0.3] = NEVER
    uniforms = torch.rand(n, generator=generator, dtype=torch.float64).tolist()
    counts = Counter(
        token for at in range(0, n, 4000) for token in draws(logits, uniforms[at : at + 4000], temperature)
    )
    probs = (logits.double() / temperature).softmax(-1)
    assert all(probs[token] > 0 for token in counts)
    often = [t for t in range(size) if n * float(probs[t]) >= 10]
    assert len(often) > 200
    rest = 1.0 - sum(float(probs[t]) for t in often)
    expected = [n * float(probs[t]) for t in often] + [n * rest]
    observed = [counts[t] for t in often] + [n - sum(counts[t] for t in often)]
    chi_square = sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))
    # Mean and deviation of chi-square with k degrees of freedom: k and √(2k).
    k = len(often)
    assert abs(chi_square - k) < 4 * math.sqrt(2 * k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_does_not_depend_on_its_neighbours(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(33, 5000, generator=generator).to(dtype).float()
    uniforms = torch.rand(33, generator=generator)
    temperatures = torch.tensor([1.0, 0.0, 0.7] * 11)
    tokens, log_probs = draw(logits.clone(), uniforms, temperatures)
    for rows in ([0], [1], [2], [5, 6, 7], list(range(8, 33)), [32, 3, 17]):
        some, theirs = draw(logits[rows].clone(), uniforms[rows], temperatures[rows])
        assert some == [tokens[r] for r in rows]
        assert theirs == [log_probs[r] for r in rows]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers_are_a_fault_not_a_token(bad: float) -> None:
    logits = torch.zeros(2, 300)
    logits[1, 7] = bad
    with pytest.raises(EngineFault, match="its weights have diverged; go back to an earlier checkpoint and lower"):
        draw(logits, torch.zeros(2), torch.ones(2))
