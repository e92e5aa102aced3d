"""The only module that turns a job into live objects: engine, chat format, tools, grader, agent, plans.

torch is imported here, through the engine, and only when one is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agentrft.audit.drift import DriftMonitor
from agentrft.chat import AnyFormat, pick_format
from agentrft.credit.spec import InformationGain
from agentrft.engines.models import load_tokenizer
from agentrft.engines.openai_chat import open_judge
from agentrft.errors import UserError
from agentrft.graders import AnySpec, build_grader
from agentrft.jobs.bundle import bundle_hash
from agentrft.jobs.models import Weights
from agentrft.jobs.probe import GRADER, missing_grader
from agentrft.jobs.response_format import formed
from agentrft.jobs.rows import demonstrations_of, items_of, preferences_of
from agentrft.jobs.spec import JobSpec, Lora
from agentrft.jobs.tools import open_tools
from agentrft.net.policy import NetworkPolicy
from agentrft.protocols import Generator, Grader, Learner, Monitor
from agentrft.rollout import Agent, GeneratorActor, Limits
from agentrft.runtime.machine import INSTALL_TORCH, missing_torch_packages
from agentrft.tools import JobTools, ToolLimits
from agentrft.train.demos import demonstration_row
from agentrft.train.dpo_plan import DpoPlan, PreferenceUnit
from agentrft.train.plan import RftPlan, SftPlan
from agentrft.train.played import Crediting
from agentrft.train.preference_rows import preference_units
from agentrft.train.reference_answers import ReferenceAnswers
from agentrft.train.rehearsal import Rehearsal
from agentrft.types import Item, Message, Row

_RFT_SETTINGS = ("steps", "group_size", "warmup_steps", "loss", "penalties", "oversample", "keep_checkpoints")
"""Fields of the job's `training` that a reinforcement plan takes as they are."""

_COMPARES_STATES = frozenset({"step_groups", "step_baseline", "grouped_gae", "python"})
"""Methods of credit for which the tools are asked for their state before each reply."""


class EngineLearner(Learner, Protocol):
    """A learner that can also start from another run's weights."""

    async def load_weights(self, folder: Path) -> None:
        """Take a saved adapter or model, the optimiser fresh; raises UserError when it does not fit."""
        ...


class Engine(Protocol):
    """One loaded model, as generator and learner over the same weights."""

    @property
    def generator(self) -> Generator: ...
    @property
    def learner(self) -> EngineLearner: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    async def close(self) -> None: ...


LoadEngine = Callable[[JobSpec, Weights, bool], Awaitable[Engine]]
"""(job, weights, whether it will train) → engine. Tests pass one that loads no model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A job's live objects; made by `open_job`, gone with it."""

    spec: JobSpec
    base_dir: Path
    weights: Weights
    engine: Engine
    chat_format: AnyFormat
    tools: JobTools
    agent: Agent
    grader: Grader | None
    """None when the job names none: it can train on demonstrations, and chat."""
    audit_grader: Grader | None = None
    """Of `audit.grader`; None when the job names none."""

    def graded(self) -> Grader:
        """The grader; raises UserError when the job has none."""
        if self.grader is None:
            raise missing_grader()
        return self.grader

    @property
    def max_tokens(self) -> int:
        """Longest episode: the job's limit, within the model's context."""
        context = self.engine.generator.context_tokens
        return min(self.agent.limits.max_episode_tokens or context, context)


@asynccontextmanager
async def open_job(
    spec: JobSpec,
    base_dir: Path,
    weights: Weights,
    *,
    training: bool,
    load: LoadEngine | None = None,
    network: NetworkPolicy | None = None,
) -> AsyncIterator[Live]:
    """The job's parts over one model; closed in reverse order whatever happens inside.

    `network` says which addresses its tools and graders may ask; what a person at the keyboard may reach when it is
    left out.
    """
    async with AsyncExitStack() as opened:
        engine = await (load or load_engine)(spec, weights, training)
        opened.push_async_callback(engine.close)
        tokenizer = await asyncio.to_thread(load_tokenizer, weights.folder)
        chat_format = pick_format(tokenizer, spec.agent.format)
        tokens = chat_format.tokenizer.control_tokens
        limits = _tool_limits(spec, chat_format)
        tools = await open_tools(spec, base_dir, limits, template_tokens=tokens, network=network)
        opened.push_async_callback(tools.close)
        graders = [grader_of(spec, base_dir, network), audit_grader_of(spec, base_dir, network) if training else None]
        for grader in graders:
            if grader is not None:
                opened.push_async_callback(grader.close)
        actor = GeneratorActor(generator=engine.generator, chat_format=chat_format)
        yield Live(
            spec=spec,
            base_dir=base_dir,
            weights=weights,
            engine=engine,
            chat_format=chat_format,
            tools=tools,
            agent=Agent(
                actor=actor, tools=tools, limits=limits_of(spec), asks_state=training and compares_states(spec)
            ),
            grader=graders[0],
            audit_grader=graders[1],
        )


async def load_engine(spec: JobSpec, weights: Weights, training: bool) -> Engine:
    """The torch engine with the weights in it, the optimiser fresh.

    Raises UserError when torch is not installed, or when a job would train an adapter of another rank than it has.
    """
    require_torch()
    from agentrft.engines.torch_engine import LearnerSettings, LoraSpec, TorchEngine

    lora = adapter_for(spec, weights, training)
    settings = spec.training
    engine = await asyncio.to_thread(
        TorchEngine.load,
        weights.folder,
        lora=None if lora is None else LoraSpec(rank=lora.rank, alpha=lora.alpha),
        dtype=settings.dtype,
        exact=settings.exact,
        seed=spec.seed,
        learner=LearnerSettings(
            max_grad_norm=settings.max_grad_norm, betas=settings.adam_betas, weight_decay=settings.weight_decay
        ),
    )
    if weights.trained is not None:
        await engine.learner.load_weights(weights.trained)
    return engine


def require_torch() -> None:
    """Raise UserError with the install command unless the packages of `agentrft[torch]` are there."""
    missing = missing_torch_packages()
    if missing:
        raise UserError(
            f"this needs a model engine, and {', '.join(missing)} is not installed. Install it: {INSTALL_TORCH}",
            code="torch_missing",
        )


def adapter_for(spec: JobSpec, weights: Weights, training: bool) -> Lora | None:
    """Which adapter the engine carries: the job's when training, the weights' own otherwise; None is all weights.

    The base model alone is played through an untrained adapter, which changes nothing: that spares the float32 copies
    that training all weights keeps.
    """
    own = Lora(rank=weights.rank, alpha=weights.alpha) if weights.rank and weights.alpha else None
    if not training:
        return None if weights.is_full else own or Lora()
    wanted = spec.training.lora
    if weights.trained is None or wanted == own:
        return wanted
    raise UserError(
        f"{weights.name} holds {_kind_of(own)}, but the job trains {_kind_of(wanted)}; expected the same. Set "
        f"`training.lora` to {_as_yaml(own)}, or start from a base model",
        param="training.lora",
        code="checkpoint_mismatch",
    )


def compares_states(spec: JobSpec) -> bool:
    """Whether credit wants to know the state of the tools before each reply."""
    return spec.method.reinforcement is not None and spec.training.credit.type in _COMPARES_STATES


def limits_of(spec: JobSpec) -> Limits:
    """The loop's limits, as the job names them."""
    limits = spec.agent.limits
    return Limits(
        max_turns=limits.max_turns,
        max_reply_tokens=limits.max_reply_tokens,
        max_episode_tokens=limits.max_episode_tokens,
        max_time_s=limits.max_time_s,
        max_malformed=limits.max_malformed,
    )


def grader_of(spec: JobSpec, base_dir: Path, network: NetworkPolicy | None = None) -> Grader | None:
    """The job's grader, or None; raises UserError when it, or the judge that it asks, cannot be built."""
    reinforcement = spec.method.reinforcement
    return None if reinforcement is None else _grader(spec, reinforcement.grader, base_dir, GRADER, network)


def audit_grader_of(spec: JobSpec, base_dir: Path, network: NetworkPolicy | None = None) -> Grader | None:
    """The job's `audit.grader`, or None; raises UserError as `grader_of` does."""
    document = spec.audit.grader if spec.audit else None
    return None if document is None else _grader(spec, document, base_dir, "audit.grader", network)


def _grader(spec: JobSpec, document: AnySpec, base_dir: Path, param: str, network: NetworkPolicy | None) -> Grader:
    grader = build_grader(document, base_dir, param=param, open_judge=open_judge, network=network)
    given = spec.method.reinforcement.response_format if spec.method.reinforcement else None
    if given is None:
        return grader
    return formed(grader, False if given is False else given.answers)


def monitor_of(live: Live) -> Monitor | None:
    """The alarms of a reinforcement run; None when the job turns them off."""
    audit = live.spec.audit
    if not audit or not audit.monitor:
        return None
    return DriftMonitor(
        live.audit_grader,
        audit.thresholds,
        pass_threshold=pass_threshold_of(live.spec),
        audit_pass_threshold=audit.grader.pass_threshold if audit.grader else 0.5,
    )


def pass_threshold_of(spec: JobSpec) -> float:
    """The grade from which on an episode is a success."""
    reinforcement = spec.method.reinforcement
    return reinforcement.grader.pass_threshold if reinforcement else 0.5


def sft_plan(live: Live, *, run: str, folder: Path) -> SftPlan:
    """Supervised fine-tuning on the job's demonstrations; raises UserError for one that cannot be rendered."""
    settings = live.spec.method.supervised.hyperparameters
    return SftPlan(
        run=run,
        folder=folder,
        bundle=bundle_hash(live.spec, live.base_dir),
        rows=demonstration_rows(live),
        validation_rows=demonstration_rows(live, held_out=True),
        seed=live.spec.seed,
        n_epochs=settings.n_epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=live.spec.training.warmup_steps,
        keep_checkpoints=live.spec.training.keep_checkpoints,
    )


def rehearsal_of(live: Live, *, run: str, validation: Sequence[Item] | None = None) -> Rehearsal | None:
    """What plays the validation items during supervised training; None where the job does not say `early_stop`.

    `validation` replaces the job's own. Raises UserError for a job without a grader, or without validation items.
    """
    wanted = live.spec.method.supervised.early_stop
    if wanted is None:
        return None
    return Rehearsal(
        run=run,
        agent=live.agent,
        grader=live.graded(),
        items=(items_of(live.spec, live.base_dir, "validation") if validation is None else validation)[: wanted.items],
        samples=wanted.samples,
        pass_threshold=pass_threshold_of(live.spec),
        pass_at_k=wanted.pass_at_k,
        readable=wanted.readable,
    )


def dpo_plan(live: Live, *, run: str, folder: Path) -> DpoPlan:
    """Preference optimisation on the job's preferences; raises UserError for one that cannot be rendered."""
    method = live.spec.method.dpo
    return DpoPlan(
        run=run,
        folder=folder,
        bundle=bundle_hash(live.spec, live.base_dir),
        units=_preference_units(live, held_out=False),
        validation_units=_preference_units(live, held_out=True),
        loss=method.loss,
        patience=method.patience,
        seed=live.spec.seed,
        n_epochs=method.hyperparameters.n_epochs,
        batch_size=method.hyperparameters.batch_size,
        learning_rate=method.hyperparameters.learning_rate,
        warmup_steps=live.spec.training.warmup_steps,
        keep_checkpoints=live.spec.training.keep_checkpoints,
    )


def _preference_units(live: Live, *, held_out: bool) -> list[PreferenceUnit]:
    preferences = preferences_of(live.spec, live.base_dir, held_out=held_out)
    return preference_units(preferences, live.tools.specs, live.chat_format, max_tokens=live.max_tokens)


def rft_plan(live: Live, *, run: str, folder: Path, validation: Sequence[Item] | None = None) -> RftPlan:
    """Reinforcement fine-tuning on the job's items; `validation` replaces the job's own validation items.

    Raises UserError when rows, or a function of the user's own credit, cannot be used.
    """
    spec = live.spec
    reinforcement = spec.method.reinforcement
    if reinforcement is None:
        raise UserError("the job has no `method.reinforcement` section", param="method.reinforcement")
    if validation is None:
        validation = items_of(spec, live.base_dir, "validation") if spec.data.validation else []
    training = {name: getattr(spec.training, name) for name in _RFT_SETTINGS}
    items = items_of(spec, live.base_dir, "train")
    return RftPlan(
        run=run,
        folder=folder,
        bundle=bundle_hash(spec, live.base_dir),
        items=items,
        validation=validation,
        seed=spec.seed,
        batch_size=reinforcement.hyperparameters.batch_size,
        learning_rate=reinforcement.hyperparameters.learning_rate,
        eval_interval=reinforcement.hyperparameters.eval_interval,
        eval_samples=reinforcement.hyperparameters.eval_samples,
        pass_threshold=pass_threshold_of(spec),
        measure_kl=spec.training.lora is not None,
        credit=Crediting.of(spec.training.credit, live.base_dir),
        reference=_reference_answers(live, items),
        **training,
    )


def _reference_answers(live: Live, items: Sequence[Item]) -> ReferenceAnswers | None:
    """What information gain needs; None for other credit."""
    credit = live.spec.training.credit
    if not isinstance(credit, InformationGain):
        return None

    def reply(item: Item, text: str) -> list[int]:
        return live.chat_format.reply(Message(role="assistant", content=text), item.tools or live.tools.specs)

    return ReferenceAnswers.of(items, credit.reference, reply, live.engine.generator.context_tokens)


def demonstration_rows(live: Live, *, held_out: bool = False) -> list[Row]:
    """The job's demonstrations in the tokens of a real episode; with `held_out` those that choose the checkpoint."""
    return [
        demonstration_row(
            demonstration, demonstration.tools or live.tools.specs, live.chat_format, max_tokens=live.max_tokens
        )
        for demonstration in demonstrations_of(live.spec, live.base_dir, held_out=held_out)
    ]


def _tool_limits(spec: JobSpec, chat_format: AnyFormat) -> ToolLimits:
    limits = spec.agent.limits
    return ToolLimits(
        timeout_s=limits.tool_timeout_s,
        output_tokens=limits.tool_output_tokens,
        count_tokens=lambda text: len(chat_format.tokenizer.encode(text)),
    )


def _kind_of(lora: Lora | None) -> str:
    return "all weights" if lora is None else f"an adapter of rank {lora.rank} and alpha {lora.alpha:g}"


def _as_yaml(lora: Lora | None) -> str:
    return "null" if lora is None else f"{{rank: {lora.rank}, alpha: {lora.alpha:g}}}"
