"""The job document: what `job.yaml` and the create call of the API may say.

Unknown keys are errors and nothing is ignored: an option that is here takes effect. Paths are relative to the job
file. `agentrft.jobs.load` reads it from YAML with line numbers; `docs/job.md` explains every field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agentrft.audit.thresholds import Thresholds
from agentrft.credit.spec import CreditSpec, GroupMean, LeaveOneOut, PenaltiesSpec, Tree
from agentrft.graders import GraderSpec, MultiSpec
from agentrft.jobs.response_format import ResponseFormat
from agentrft.losses.spec import DpoLoss, PolicyGradientLoss, PolicyLossSpec, PreferenceLossSpec
from agentrft.tools import Guardrails, OutputSpec, ToolBinding, ToolDoc


class Document(BaseModel):
    """Base of everything users write: unknown keys are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SupervisedHyperparameters(Document):
    n_epochs: float = Field(default=1.5, gt=0, le=50)
    """Passes over the demonstrations; fractions stop inside a pass."""
    batch_size: int = Field(default=8, ge=1, le=256)
    """Demonstrations per optimiser step."""
    learning_rate: float = Field(default=5e-4, ge=0, le=1)
    """Peak rate: three warm-up steps, then linear decay to a tenth."""


class ReinforcementHyperparameters(Document):
    batch_size: int = Field(default=6, ge=1, le=256)
    """Items per optimiser step, each with `training.group_size` episodes."""
    eval_interval: int = Field(default=4, ge=1)
    """Steps between validations; a checkpoint is written at each."""
    eval_samples: int = Field(default=2, ge=1, le=64)
    """Episodes per validation item."""
    learning_rate: float = Field(default=1e-4, ge=0, le=1)
    """Constant after `training.warmup_steps`."""


class DpoHyperparameters(Document):
    n_epochs: float = Field(default=1.0, gt=0, le=50)
    """Passes over the preferences; fractions stop inside a pass."""
    batch_size: int = Field(default=8, ge=1, le=256)
    """Pairs, or rated conversations, per optimiser step."""
    learning_rate: float = Field(default=5e-5, ge=0, le=1)
    """Peak rate: `training.warmup_steps` up, then linear decay to a tenth."""
    beta: float | None = Field(default=None, gt=0, le=100)
    """`loss.beta` under OpenAI's name; None leaves it to the loss."""


class EarlyStop(Document):
    """Ends supervised training once the agent plays well enough to learn by reinforcement."""

    pass_at_k: float = Field(default=0.5, gt=0, le=1)
    """Validation items that at least one of their `samples` episodes must solve, as a share …"""
    readable: float = Field(default=0.9, ge=0, le=1)
    """… and replies that must be readable."""
    items: int = Field(default=50, ge=1)
    """Validation items that are played at every checkpoint: the first ones."""
    samples: int = Field(default=8, ge=1, le=64)
    """Episodes per item."""


class SupervisedMethod(Document):
    hyperparameters: SupervisedHyperparameters = SupervisedHyperparameters()
    early_stop: EarlyStop | None = None
    """By what is played; without it the loss on held-out demonstrations chooses the checkpoint."""


class DpoMethod(Document):
    hyperparameters: DpoHyperparameters = DpoHyperparameters()
    loss: PreferenceLossSpec = DpoLoss()
    """`dpo` and `simpo` on pairs, `kto` on rated conversations."""
    patience: int | None = Field(default=None, ge=1)
    """Held-out validations in a row without a lower loss after which training ends."""

    @model_validator(mode="before")
    @classmethod
    def _beta_has_one_value(cls, document: Any) -> Any:
        """Put OpenAI's `hyperparameters.beta` where the loss has it."""
        hyperparameters, loss = (_plain(document, name) for name in ("hyperparameters", "loss"))
        beta = hyperparameters.get("beta")
        if beta is None:
            return document
        if loss.get("beta", beta) != beta:
            raise ValueError("`hyperparameters.beta` and `loss.beta` are the same setting; leave out one of them")
        return {**document, "loss": {"type": "dpo", **loss, "beta": beta}}


def _plain(document: Any, name: str) -> dict[str, Any]:
    """A section as the user gave it; empty where it is absent, or is not one."""
    section = document.get(name) if isinstance(document, dict) else None
    if isinstance(section, BaseModel):
        return section.model_dump(exclude_unset=True)
    return section if isinstance(section, dict) else {}


class ReinforcementMethod(Document):
    grader: GraderSpec
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()
    response_format: ResponseFormat | Literal[False] | None = None
    """Which answers graders see as `sample.output_json`: those of this form; None takes any JSON, false no answer."""


class Method(Document):
    """Which loop runs. Several sections may be given: the ladder uses two, `run` the one that `type` names."""

    type: Literal["supervised", "dpo", "reinforcement"] = "supervised"
    supervised: SupervisedMethod = SupervisedMethod()
    dpo: DpoMethod = DpoMethod()
    reinforcement: ReinforcementMethod | None = None

    @model_validator(mode="after")
    def _has_its_section(self) -> Method:
        if self.type == "reinforcement" and self.reinforcement is None:
            raise ValueError("type is `reinforcement` but there is no `reinforcement` section with a `grader`")
        return self


File = Annotated[str, Field(min_length=1)]
"""A path, relative to the job file."""


class Data(Document):
    """JSONL files, relative to the job file."""

    train: File | None = None
    """Items to practise on."""
    validation: File | None = None
    """Items that choose the best checkpoint."""
    test: File | None = None
    """Items that only `eval` and the ladder's figures touch."""
    splits: dict[str, File] = {}
    """Further held-out files by name, for `eval --split NAME`."""
    demonstrations: File | None = None
    """Conversations to imitate."""
    demonstrations_validation: File | None = None
    """Held-out ones whose loss chooses the best checkpoint of a `supervised` job."""
    preferences: File | None = None
    """Pairs of outputs, or rated conversations."""
    preferences_validation: File | None = None
    """Held-out ones that choose the best checkpoint of a `dpo` job."""

    @model_validator(mode="after")
    def _splits_have_free_names(self) -> Data:
        taken = sorted({*Data.model_fields} & self.splits.keys())
        if taken:
            raise ValueError(f"splits may not be called {', '.join(taken)}: `data` has fields of these names")
        return self

    def path_of(self, split: str) -> str | None:
        """The file of a split by name (`test`, or a key of `splits`), or None."""
        return self.splits.get(split) or {"train": self.train, "validation": self.validation, "test": self.test}.get(
            split
        )


class LimitsSpec(Document):
    """Bounds of one episode."""

    max_turns: int = Field(default=8, ge=1, le=100)
    """Replies; the last must be the answer, so one tool call fewer is possible."""
    max_reply_tokens: int = Field(default=256, ge=1)
    max_episode_tokens: int | None = Field(default=None, ge=16)
    """Prompt, replies and tool results together; the model's context when absent."""
    max_time_s: float = Field(default=600.0, gt=0)
    tool_timeout_s: float = Field(default=30.0, gt=0)
    tool_output_tokens: int = Field(default=1024, ge=16)
    """Longer tool results are cut for the model, and say so."""
    max_malformed: int = Field(default=2, ge=0)
    """Unreadable calls in a row that the model may mend."""


class Agent(Document):
    system: str | None = None
    """System message for rows that have none."""
    tools: list[ToolBinding] = []
    tool_docs: dict[str, ToolDoc] = {}
    """Other words for tools than their own, by name."""
    demos: File | None = None
    """Worked examples, as demonstrations: they stand in every prompt, between the system message and the task."""
    format: Literal["auto", "line", "hermes", "llama3", "mistral"] = "auto"
    """How tool calls are written; `auto` goes by the model's family."""
    outputs: dict[str, OutputSpec] = {}
    """How tool outputs reach the model, by tool glob."""
    limits: LimitsSpec = LimitsSpec()


class Lora(Document):
    rank: int = Field(default=16, ge=1, le=512)
    alpha: float = Field(default=32.0, gt=0)


def _credit_of_loss(given: Mapping[str, Any]) -> CreditSpec:
    """What the loss is defined with; the default where it leaves that to the job, or cannot be read."""
    return LeaveOneOut() if getattr(given.get("loss"), "credit", None) == "leave_one_out" else GroupMean()


class Training(Document):
    group_size: int = Field(default=8, ge=2, le=256)
    """Episodes per item and step; credit compares them."""
    steps: int = Field(default=12, ge=1)
    """Optimiser steps of reinforcement."""
    warmup_steps: int = Field(default=3, ge=0)
    """Steps over which the rate rises linearly to its value."""
    lora: Lora | None = Lora()
    """null trains all weights."""
    loss: PolicyLossSpec = PolicyGradientLoss()
    credit: CreditSpec = Field(default_factory=_credit_of_loss)
    """Who earned the reward; by default what the loss is defined with, else `group_mean`."""
    penalties: PenaltiesSpec = PenaltiesSpec()
    """How a grade becomes a reward."""
    oversample: float = Field(default=3.0, ge=1, le=16)
    """Groups without signal are replaced until this many times `batch_size` items have been tried."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    exact: bool = False
    """Bit-identical results under any timing (CPU), at a cost in speed."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    adam_betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    weight_decay: float = Field(default=0.0, ge=0)
    keep_checkpoints: int = Field(default=3, ge=1)
    """Newest checkpoints kept; the best one is always kept."""

    @model_validator(mode="after")
    def _loss_has_what_it_needs(self) -> Training:
        wanted, credit = self.loss.credit, self.credit.type
        if wanted and credit != wanted:
            raise ValueError(
                f"loss `{self.loss.type}` is defined with credit `{wanted}`, got `{credit}`; leave `credit` out"
            )
        if self.loss.reward_kl_coef and self.lora is None:
            raise ValueError(
                "`loss.kl_coef` compares with what training began with, which takes an adapter, got `lora: null`; "
                "set `lora`, or leave `kl_coef` at 0"
            )
        return self

    @model_validator(mode="after")
    def _rewards_and_credit_can_be_had(self) -> Training:
        if self.penalties.tool_seconds is not None and self.exact:
            raise ValueError(
                "`penalties.tool_seconds` prices wall time, which no run repeats, got `exact: true`; price `calls`, or "
                "leave `exact` out"
            )
        if isinstance(self.credit, Tree) and self.credit.trees >= self.group_size:
            raise ValueError(
                f"credit `tree` has {self.credit.trees} trees in groups of {self.group_size}, which leaves none to "
                "branch; expected fewer trees, or a larger `group_size`"
            )
        return self


class Audit(Document):
    """What watches over the reward of a reinforcement job."""

    probes: bool = True
    """Audit the grader before step 1, and refuse to train on one that can be fooled."""

    grader: GraderSpec | None = None
    """An independent grader of validation episodes, whose figure the reward must not run away from."""
    monitor: bool = True
    """Alarms while training."""
    thresholds: Thresholds = Thresholds()
    """When these alarms fire, by their names."""

    @model_validator(mode="after")
    def _thresholds_have_alarms(self) -> Audit:
        if not self.monitor and self.thresholds != Thresholds():
            raise ValueError("`thresholds` are given, but `monitor: false` turns the alarms off; leave out one of them")
        return self


class JobSpec(Document):
    """One job: a model, a method, data, an agent."""

    model: str = Field(min_length=1)
    """Local folder, hub id or alias."""
    suffix: str | None = Field(default=None, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    """Part of the trained model's name."""
    seed: int = Field(default=0, ge=0, le=2_147_483_647)
    metadata: dict[str, str] = Field(default={}, max_length=16)
    method: Method = Method()
    data: Data
    agent: Agent = Agent()
    guardrails: Guardrails | None = None
    """Rules for tool calls; without them calls are only watched (`mode: observe`)."""
    training: Training = Training()
    audit: Audit | Literal[False] = Audit()
    """False turns audit and alarms off."""

    def played_split(self, kind: str) -> Literal["train", "validation"] | None:
        """The split whose items a training of this kind plays first; None where it plays none."""
        if kind == "reinforcement":
            return "train"
        return "validation" if kind == "supervised" and self.method.supervised.early_stop else None

    @model_validator(mode="after")
    def _gates_have_parts(self) -> JobSpec:
        gates = self.training.penalties.gates
        if not gates or self.method.reinforcement is None:
            return self
        grader = self.method.reinforcement.grader
        parts = list(grader.graders) if isinstance(grader, MultiSpec) else []
        unknown = [gate.part for gate in gates if gate.part not in parts]
        if unknown:
            expected = f"one of {', '.join(parts)}" if parts else "a grader of type `multi`, whose parts have names"
            raise ValueError(f"`training.penalties.gates` names the part `{unknown[0]}`, expected {expected}")
        return self
