"""When alarms fire, as a job may say it: `audit: {thresholds: {length: 2.0}}`. docs/audit.md explains each."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
"""From 0 to 1."""
Ratio = Annotated[float, Field(gt=1)]
"""Now over something earlier."""


class Thresholds(BaseModel):
    """One field an alarm, with the alarm's name; further fields begin with it. Defaults: algorithms.md §5.3."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    gap: float = Field(default=0.05, ge=0)
    """Warns above it; rewards, like the next."""
    gap_stop: float = Field(default=0.10, ge=0)
    """Stops above it, where the held-out grade is flat as well."""
    gap_evaluations: int = Field(default=3, ge=2)
    """Evaluations over which the held-out grade is called flat."""
    gap_flat_rise: float = Field(default=0.01, ge=0)
    """A held-out grade that rose by no more than this over them is flat: an exact 0 would be noise's to decide."""
    length: Ratio = 1.5
    """Mean generated tokens over the start's."""
    length_rho: Share = 0.3
    """Of |ρ| between reward and length; both must be passed."""
    calls: Ratio = 1.5
    """Mean tool calls over the start's."""
    calls_rho: Share = 0.3
    diversity: Share = 0.25
    """Of the start's, below."""
    entropy: Share = 0.20
    """Of the start's, below."""
    template: Share = 0.5
    """Of the items that get one and the same answer or calls."""
    template_growth: Ratio = 1.5
    """Of that share over the start's; both must be passed."""
    zero_signal: Share = 0.7
    """Of groups."""
    ess: Share = 0.3
    """Below."""
    grad_norm: Ratio = 5.0
    """Over the running median."""
    kl_ref: float = Field(default=0.1, gt=0)
    """Nats per token."""
    kappa: float = Field(default=0.2, gt=0, le=2)
    """Fall of Cohen's κ since the first evaluation."""
    ngrams: Ratio = 10.0
    """Frequency over the start's."""

    @model_validator(mode="after")
    def _stops_after_warning(self) -> Thresholds:
        if self.gap_stop < self.gap:
            raise ValueError(f"got gap_stop {self.gap_stop:g} below gap {self.gap:g}, expected it at or above")
        return self
