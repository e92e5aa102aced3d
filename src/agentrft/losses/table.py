"""Every loss by the `type` of its spec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentrft.losses.batch import LossBatch, LossResult
from agentrft.losses.policy_gradient import policy_gradient
from agentrft.losses.supervised import supervised

LOSSES: dict[str, Callable[[LossBatch, Any], LossResult]] = {
    "supervised": supervised,
    "pg_tv": policy_gradient,
}
