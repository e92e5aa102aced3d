"""Every loss by the `type` of its spec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentrft.losses.batch import LossBatch, LossResult
from agentrft.losses.cispo import cispo
from agentrft.losses.clipped import clipped
from agentrft.losses.policy_gradient import policy_gradient
from agentrft.losses.preference import dpo, kto, simpo
from agentrft.losses.sapo import sapo
from agentrft.losses.supervised import supervised
from agentrft.losses.whole_rows import gspo, rloo

LOSSES: dict[str, Callable[[LossBatch, Any], LossResult]] = {
    "supervised": supervised,
    "pg_tv": policy_gradient,
    "grpo": clipped,
    "dapo": clipped,
    "dr_grpo": clipped,
    "rloo": rloo,
    "cispo": cispo,
    "gspo": gspo,
    "maxrl": policy_gradient,
    "reinforce_pp": clipped,
    "sapo": sapo,
    "dpo": dpo,
    "simpo": simpo,
    "kto": kto,
}
