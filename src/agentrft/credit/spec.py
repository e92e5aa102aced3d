"""What a job file says under `training.credit` and `training.penalties`. No torch here.

A method of credit is written as its name alone, `credit: step_groups`, or with its settings,
`credit: {type: step_groups, omega: 0.5}`; a function of one's own as `credit: "mycredit.py:function"`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_TARGET = r"^[^:]+\.py:[A-Za-z_]\w*$"


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GroupMean(_Spec):
    """Reward minus the mean of the group."""

    type: Literal["group_mean"] = "group_mean"


class LeaveOneOut(_Spec):
    """Reward minus the mean of the other members."""

    type: Literal["leave_one_out"] = "leave_one_out"


class StepGroups(_Spec):
    """Group mean, and turns compared with those that others took from the same state."""

    type: Literal["step_groups"] = "step_groups"
    omega: float = Field(default=1.0, gt=0, le=10)
    """Weight of the step term."""
    gamma: float = Field(default=0.95, gt=0, le=1)
    """Discount per turn in the step term."""


class StepBaseline(_Spec):
    """Return minus what others earned from the same state; unbiased."""

    type: Literal["step_baseline"] = "step_baseline"


class TurnReturns(_Spec):
    """Returns that include rewards for single turns."""

    type: Literal["turn_returns"] = "turn_returns"
    rewards: str = Field(pattern=_TARGET)
    """`file.py:function` that gives one turn's reward."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount per turn."""
    force: bool = False
    """Train on turn rewards that do not go with success."""


class GroupedGae(_Spec):
    """Advantages from state values that the group estimates."""

    type: Literal["grouped_gae"] = "grouped_gae"
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount per turn."""
    lam: float = Field(default=0.95, ge=0, lt=1)
    """λ; with 1 it would be `step_baseline`."""


class InformationGain(_Spec):
    """Turns earn what they add to the probability of the reference answer."""

    type: Literal["information_gain"] = "information_gain"
    reference: str = Field(min_length=1)
    """The row's field with the reference answer."""
    weight: float = Field(default=1.0, gt=0, le=1)
    """Of the gain, against the episode's reward; at most 1, which keeps the reward the larger part."""
    form: Literal["gain", "potential"] = "gain"
    """`potential` leaves what is optimised as it is."""


class Tree(_Spec):
    """Turns against their siblings, in episodes that branch."""

    type: Literal["tree"] = "tree"
    trees: int = Field(default=2, ge=2)
    """Episodes of a group that begin at the beginning; the other members branch off from these."""
    at: list[Annotated[int, Field(ge=2)]] = Field(default=[2], min_length=1)
    """Turns, from 1, before which members branch off: from each tree before the first of these, then the next."""


class OwnCredit(_Spec):
    """A function of one's own."""

    type: Literal["python"] = "python"
    target: str = Field(pattern=_TARGET)
    """`file.py:function`, the file relative to the job file."""


def _written_out(given: Any) -> Any:
    """A name alone is a method without settings; `file.py:function` is one's own."""
    if not isinstance(given, str):
        return given
    return {"type": "python", "target": given} if ":" in given else {"type": given}


CreditSpec = Annotated[
    GroupMean | LeaveOneOut | StepGroups | StepBaseline | TurnReturns | GroupedGae | InformationGain | Tree | OwnCredit,
    Field(discriminator="type"),
    BeforeValidator(_written_out),
]


class Cost(_Spec):
    """What using up a budget costs: nothing up to `free`, `weight` at `budget` and beyond, in between in proportion."""

    weight: float = Field(gt=0, lt=1)
    """Share of the earned reward that is lost at the budget."""
    free: float = Field(default=0.0, ge=0)
    budget: float = Field(gt=0)

    @model_validator(mode="after")
    def _budget_is_beyond_free(self) -> Cost:
        if self.budget <= self.free:
            raise ValueError(f"budget is {self.budget:g} and free is {self.free:g}: budget must be the larger")
        return self

    def of(self, used: float) -> float:
        """The share lost, from 0 to `weight`."""
        return self.weight * min(1.0, max(0.0, (used - self.free) / (self.budget - self.free)))


class ToolCosts(_Spec):
    """What each call of a tool costs, as a share of the earned reward."""

    each: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1)
    """Tool name → share per call."""
    most: float = Field(default=0.3, gt=0, lt=1)
    """All calls together cost no more than this."""

    @model_validator(mode="after")
    def _one_call_is_within_bounds(self) -> ToolCosts:
        for name, share in self.each.items():
            if share > self.most:
                raise ValueError(f"each.{name} is {share:g}, more than most ({self.most:g}): it could never be charged")
        return self


class Gate(_Spec):
    """A part of the grade that everything else hangs on."""

    part: str = Field(min_length=1)
    """Name of a part of a `multi` grader."""
    at_least: float
    """The gate is open when the part's grade reaches this."""
    factor: float = Field(default=0.0, ge=0, lt=1)
    """What is left of the reward when it is shut."""


class PenaltiesSpec(_Spec):
    """How a grade becomes a reward. Without settings: the grade, or min(grade, 0) where a limit cut the episode off."""

    success_range: tuple[float, float] = (0.0, 1.0)
    """Grades of a complete failure and a complete success; costs grow from none at the first to full at the second."""
    calls: Cost | None = None
    """Tool calls, unreadable ones included."""
    tokens: Cost | None = None
    """Generated tokens."""
    tool_seconds: Cost | None = None
    """Wall time spent in tools; a repeated run will not repeat it exactly."""
    tools: ToolCosts | None = None
    process: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the earned reward that depends on how many tool calls were valid."""
    gates: list[Gate] = []
    truncated: Literal["clamp", "grade", "leave_out"] = "clamp"
    """An episode that a limit cut off: min(reward, 0); its reward as it is; no reward, out of loss and baseline."""

    @model_validator(mode="after")
    def _success_always_pays(self) -> PenaltiesSpec:
        low, high = self.success_range
        if not low < high:
            raise ValueError(f"success_range is [{low:g}, {high:g}]: the first must be below the second")
        costs = [cost.weight for cost in (self.calls, self.tokens, self.tool_seconds) if cost is not None]
        most = math.fsum([*costs, self.process, self.tools.most if self.tools else 0.0])
        if most >= 1:
            raise ValueError(
                f"penalties take up to {most:g} of a success: keep their sum below 1, or failing pays as well"
            )
        parts = [gate.part for gate in self.gates]
        if len(set(parts)) < len(parts):
            raise ValueError(f"gates: a part has two gates in {parts}: one each")
        return self
