"""Which loss, with which settings: what a job file says under `training.loss`. No torch here.

Every preset of reinforcement is a class with only the options it uses, so that any other is refused. What it needs
beside its loss is said as plain class attributes, for the loop to act on: `credit` (the baseline), `scale` (what
centred rewards are divided by), `normaliser` (how tokens and rows are averaged). Formulas: `docs/losses.md`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Scale = Literal["run", "none", "group_std", "group_mean", "batch"]
"""`run`: one scale for the whole run, `credit.RewardScale`; the others are `losses.scaled_credit`'s."""
Normaliser = Literal["token_mean", "row_mean", "row_sum"]
"""Mean over the step's tokens, over its rows of their token means, or over its rows of their sums."""


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SupervisedLoss(_Spec):
    """Cross-entropy on demonstrated tokens."""

    type: Literal["supervised"] = "supervised"


class TokenTruncation(_Spec):
    """A token's weight is at most `cap` (TIS, token level)."""

    type: Literal["token_truncation"]
    cap: float = Field(default=2.0, ge=1)


class TokenMask(_Spec):
    """A token whose ratio π/μ leaves [low, high] is dropped (IcePop, arXiv:2512.16144)."""

    type: Literal["token_mask"]
    low: float = Field(default=0.5, ge=0, lt=1)
    high: float = Field(default=5.0, gt=1)


class SequenceTruncation(_Spec):
    """Every token weighs min(Π π/μ over its row, cap) (TIS, sequence level)."""

    type: Literal["sequence_truncation"]
    cap: float = Field(default=5.0, ge=1)


class SequenceMask(_Spec):
    """Every token weighs Π π/μ over its row; a row where that exceeds `cap` is dropped (MIS)."""

    type: Literal["sequence_mask"]
    cap: float = Field(default=3.0, ge=1)


class SequenceBand(_Spec):
    """A row is dropped when the geometric mean of its π/μ leaves [low, high] or one token's is below `min_ratio`."""

    type: Literal["sequence_band"]
    low: float = Field(default=0.99, ge=0, lt=1)
    high: float = Field(default=1.01, gt=1)
    min_ratio: float = Field(default=1e-4, ge=0, lt=1)


RatioCorrection = Annotated[
    TokenTruncation | TokenMask | SequenceTruncation | SequenceMask | SequenceBand, Field(discriminator="type")
]
"""For presets whose gradient is weighted by the token's ratio: what is done where policy and generator disagree."""
DropCorrection = Annotated[TokenMask | SequenceBand, Field(discriminator="type")]
"""For presets that bound the weight themselves: what is left out altogether."""
RowCorrection = SequenceBand
"""For presets with one ratio per row."""


class PolicyLoss(_Spec):
    """What every preset of reinforcement declares beside its options."""

    credit: ClassVar[str | None] = None
    """The baseline that the preset is defined with, a name in `credit.CREDIT`; None leaves it to the job."""
    scale: ClassVar[Scale] = "run"
    normaliser: ClassVar[Normaliser] = "token_mean"

    @property
    def reward_kl_coef(self) -> float:
        """`kl_coef` where the preset has it, else 0."""
        return 0.0


class _KlInReward(PolicyLoss):
    kl_coef: float = Field(default=0.0, ge=0, le=10)
    """The reward of a row loses this times its summed log(π_generator/π_reference), in reward per nat."""

    @property
    def reward_kl_coef(self) -> float:
        return self.kl_coef


class _Clipped(_KlInReward):
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """No gradient from tokens with negative credit once π/μ < 1 − clip_low."""
    clip_high: float = Field(default=0.2, gt=0)
    """No gradient from tokens with positive credit once π/μ > 1 + clip_high."""
    correction: RatioCorrection | None = None


class PolicyGradientLoss(_KlInReward):
    """Importance-weighted REINFORCE with a mask in probability space; the default of reinforcement jobs."""

    type: Literal["pg_tv"] = "pg_tv"
    mask_delta: float = Field(default=0.2, gt=0, le=1)
    """A token is left out once the policy moved its probability by more than this in the direction credit pulls."""
    weight_cap: float = Field(default=5.0, ge=1)
    """Upper bound of the importance weight."""
    correction: DropCorrection | None = None


class GrpoLoss(_Clipped):
    """Clipped ratio, the group's own deviation, mean of row means (arXiv:2402.03300)."""

    scale: ClassVar[Scale] = "group_std"
    normaliser: ClassVar[Normaliser] = "row_mean"
    type: Literal["grpo"] = "grpo"


class DapoLoss(_Clipped):
    """Wider clip upwards, the group's own deviation, token mean (arXiv:2503.14476)."""

    scale: ClassVar[Scale] = "group_std"
    type: Literal["dapo"] = "dapo"
    clip_high: float = Field(default=0.28, gt=0)
    """No gradient from tokens with positive credit once π/μ > 1 + clip_high."""


class DrGrpoLoss(_Clipped):
    """Clipped ratio, no deviation, every row divided by the same constant (arXiv:2503.20783)."""

    scale: ClassVar[Scale] = "none"
    normaliser: ClassVar[Normaliser] = "row_sum"
    type: Literal["dr_grpo"] = "dr_grpo"
    row_tokens: int = Field(default=256, ge=1)
    """The constant: about the most tokens that an episode generates."""


class RlooLoss(_KlInReward):
    """A whole row is one action: its clipped ratio, against the mean of the other members (arXiv:2402.14740)."""

    credit: ClassVar[str | None] = "leave_one_out"
    scale: ClassVar[Scale] = "none"
    normaliser: ClassVar[Normaliser] = "row_sum"
    type: Literal["rloo"] = "rloo"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """No gradient from rows with negative credit once Π π/μ < 1 − clip_low."""
    clip_high: float = Field(default=0.2, gt=0)
    """No gradient from rows with positive credit once Π π/μ > 1 + clip_high."""
    correction: RowCorrection | None = None


class CispoLoss(_KlInReward):
    """Truncated importance weights, every token keeps its gradient, token mean (arXiv:2506.13585)."""

    scale: ClassVar[Scale] = "group_std"
    type: Literal["cispo"] = "cispo"
    weight_cap: float = Field(default=5.0, ge=1)
    """Upper bound of the importance weight itself, not its distance from 1."""
    correction: DropCorrection | None = None


class GspoLoss(_KlInReward):
    """One ratio per row, the geometric mean of its tokens', clipped (arXiv:2507.18071)."""

    scale: ClassVar[Scale] = "group_std"
    normaliser: ClassVar[Normaliser] = "row_mean"
    type: Literal["gspo"] = "gspo"
    clip_low: float = Field(default=3e-4, gt=0, lt=1)
    """No gradient from rows with negative credit once the mean ratio < 1 − clip_low."""
    clip_high: float = Field(default=4e-4, gt=0)
    """No gradient from rows with positive credit once the mean ratio > 1 + clip_high."""
    correction: RowCorrection | None = None


class MaxrlLoss(PolicyLoss):
    """Centred rewards divided by the group's mean reward: hard items weigh more (arXiv:2602.02710).

    For rewards that are never negative, best 0 or 1; a KL in the reward would break that and is no option here.
    """

    credit: ClassVar[str | None] = "group_mean"
    scale: ClassVar[Scale] = "group_mean"
    type: Literal["maxrl"] = "maxrl"
    mask_delta: float = Field(default=0.2, gt=0, le=1)
    """As in `pg_tv`."""
    weight_cap: float = Field(default=5.0, ge=1)
    """As in `pg_tv`."""
    correction: DropCorrection | None = None


class ReinforcePpLoss(_Clipped):
    """Clipped ratio, group mean as baseline, whitened over all tokens of the step (arXiv:2501.03262)."""

    credit: ClassVar[str | None] = "group_mean"
    scale: ClassVar[Scale] = "batch"
    type: Literal["reinforce_pp"] = "reinforce_pp"


class SapoLoss(_KlInReward):
    """A soft gate instead of a clip: the further π/μ is from 1, the less a token counts (arXiv:2511.20347)."""

    scale: ClassVar[Scale] = "group_std"
    normaliser: ClassVar[Normaliser] = "row_mean"
    type: Literal["sapo"] = "sapo"
    temperature_positive: float = Field(default=1.0, gt=0)
    """Sharpness of the gate for tokens with positive credit."""
    temperature_negative: float = Field(default=1.05, gt=0)
    """Sharpness of the gate for tokens with negative credit."""
    correction: DropCorrection | None = None


class DpoLoss(_Spec):
    """Sigmoid DPO on pairs (arXiv:2305.18290)."""

    type: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.1, gt=0)
    """How strongly the reference holds."""
    nll_coef: float = Field(default=0.0, ge=0)
    """Weight of the preferred row's mean −log-prob, which keeps its likelihood from sinking (arXiv:2404.19733)."""
    length_normalised: bool = False
    """Compare log-ratios per token instead of per row; then beta wants to be larger, 1 to 10."""


class SimpoLoss(_Spec):
    """Length-normalised preference without a reference (arXiv:2405.14734)."""

    type: Literal["simpo"] = "simpo"
    beta: float = Field(default=2.0, gt=0)
    margin: float = Field(default=1.0, ge=0)
    """γ: by how much beta × (difference of mean log-probs) should exceed zero."""


class KtoLoss(_Spec):
    """Rows that are simply good or bad, without pairs (arXiv:2402.01306)."""

    type: Literal["kto"] = "kto"
    beta: float = Field(default=0.1, gt=0)
    desirable_weight: float = Field(default=1.0, gt=0)
    undesirable_weight: float = Field(default=1.0, gt=0)


class KtoStepLoss(KtoLoss):
    """What a learner is given for one step; no job can write it."""

    reference_kl: float = Field(ge=0)
    """z₀ of the whole step (nats per row), from `losses.mean_row_kl`; a constant of the gradient."""

    @classmethod
    def of(cls, loss: KtoLoss, reference_kl: float) -> KtoStepLoss:
        """`loss` at a step whose z₀ is known."""
        return cls(**loss.model_dump(), reference_kl=reference_kl)


def _type_of(loss: Any) -> Any:
    """The tag of a policy loss; a document that names none is the default preset's."""
    return loss.get("type", "pg_tv") if isinstance(loss, dict) else getattr(loss, "type", None)


PolicyLossSpec = Annotated[
    Annotated[PolicyGradientLoss, Tag("pg_tv")]
    | Annotated[GrpoLoss, Tag("grpo")]
    | Annotated[DapoLoss, Tag("dapo")]
    | Annotated[DrGrpoLoss, Tag("dr_grpo")]
    | Annotated[RlooLoss, Tag("rloo")]
    | Annotated[CispoLoss, Tag("cispo")]
    | Annotated[GspoLoss, Tag("gspo")]
    | Annotated[MaxrlLoss, Tag("maxrl")]
    | Annotated[ReinforcePpLoss, Tag("reinforce_pp")]
    | Annotated[SapoLoss, Tag("sapo")],
    Discriminator(_type_of),
]
"""`training.loss` of reinforcement."""

PreferenceLossSpec = Annotated[DpoLoss | SimpoLoss | KtoLoss, Field(discriminator="type")]
"""The loss of a `dpo` job."""

LossSpec = Annotated[
    SupervisedLoss
    | PolicyGradientLoss
    | GrpoLoss
    | DapoLoss
    | DrGrpoLoss
    | RlooLoss
    | CispoLoss
    | GspoLoss
    | MaxrlLoss
    | ReinforcePpLoss
    | SapoLoss
    | DpoLoss
    | SimpoLoss
    | KtoStepLoss,
    Field(discriminator="type"),
]
"""Everything a learner can be given."""
