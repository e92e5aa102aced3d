"""Which loss, with which settings: what a job file says under `training.loss`. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class SupervisedLoss(BaseModel):
    """Cross-entropy on demonstrated tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["supervised"] = "supervised"


class PolicyGradientLoss(BaseModel):
    """Importance-weighted REINFORCE with a mask in probability space; the default of reinforcement jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["pg_tv"] = "pg_tv"
    mask_delta: float = Field(default=0.2, gt=0, le=1)
    """A token is left out once the policy moved its probability by more than this in the direction credit pulls."""
    weight_cap: float = Field(default=5.0, ge=1)
    """Upper bound of the importance weight."""


LossSpec = Annotated[SupervisedLoss | PolicyGradientLoss, Field(discriminator="type")]
