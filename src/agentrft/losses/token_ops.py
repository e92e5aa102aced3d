"""Per-token quantities that losses are made of. All tensors have shape [N]; nothing here reduces."""

from __future__ import annotations

from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to ± this before exp: e^20 is far beyond every cap and still far from overflow."""


def log_ratio(log_probs: Tensor, generator_log_probs: Tensor) -> Tensor:
    """log(π/μ) of each token, clamped."""
    return (log_probs - generator_log_probs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def probability_shift(log_probs: Tensor, generator_log_probs: Tensor) -> Tensor:
    """π − μ of each token, in [−1, 1]."""
    return log_probs.exp() - generator_log_probs.exp()


def k3(log_ratio: Tensor) -> Tensor:
    """ρ − 1 − log ρ: non-negative, and its mean over tokens drawn from μ is KL(μ‖π) in nats (Schulman's k3)."""
    return log_ratio.expm1() - log_ratio
