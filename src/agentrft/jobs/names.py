"""Names of models: `ft:{base}:{org}:{suffix}:{id8}` for what a job trained, `…:ckpt-step-N` for its checkpoints.

OpenAI's shape. `id8` are the first eight characters of the job's id; the suffix is empty where the job has none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentrft.errors import UserError

ORGANISATION = "local"
PREFIX_LENGTH = 8
"""Of the job's id, without its `ftjob-`."""

_PART = r"[A-Za-z0-9._-]+"
_NAME = re.compile(
    rf"ft:(?P<base>{_PART}):(?P<org>{_PART}):(?P<suffix>[A-Za-z0-9._-]{{0,64}}):(?P<job>[a-z0-9]{{{PREFIX_LENGTH}}})"
    r"(?::ckpt-step-(?P<step>0|[1-9][0-9]{0,8}))?",
    re.ASCII,
)
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """The name of a trained model, in its parts; `str` writes it."""

    base: str
    org: str = ORGANISATION
    suffix: str = ""
    job_prefix: str
    """First eight characters of the job's id, without `ftjob-`."""
    step: int | None = None
    """Of the checkpoint; None for the job's result."""

    def __str__(self) -> str:
        name = f"ft:{self.base}:{self.org}:{self.suffix}:{self.job_prefix}"
        return name if self.step is None else f"{name}:ckpt-step-{self.step}"

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """The parts of a name; raises UserError (`model_not_found`) for what is none."""
        found = _NAME.fullmatch(text)
        if found is None:
            raise UserError(
                f"model {text[:200]!r} is no name of a trained model; expected `ft:BASE:ORG:SUFFIX:ID`, and "
                "`:ckpt-step-N` after it for a checkpoint. GET /v1/models lists the names there are",
                param="model",
                code="model_not_found",
            )
        step = found["step"]
        return cls(
            base=found["base"],
            org=found["org"],
            suffix=found["suffix"],
            job_prefix=found["job"],
            step=None if step is None else int(step),
        )

    @classmethod
    def of_job(cls, job: Mapping[str, Any]) -> ModelName:
        """What the result of a job is called: a job as the store gives it, or its `job.json`."""
        asked_for = (job.get("request") or {}).get("model") or job["spec"]["model"]
        return cls(
            base=base_name(asked_for),
            suffix=job["spec"].get("suffix") or "",
            job_prefix=job["id"].removeprefix("ftjob-")[:PREFIX_LENGTH],
        )

    def at_step(self, step: int) -> ModelName:
        """The checkpoint of that step."""
        return replace(self, step=step)


def is_trained(name: str) -> bool:
    """Whether the name can only mean what a job trained."""
    return name.startswith("ft:")


def base_name(model: str) -> str:
    """A base model's part of a name: of a trained model its base, of a path or hub id the last part."""
    if is_trained(model):
        return ModelName.parse(model).base
    last = re.split(r"[/\\]", model.rstrip("/\\"))[-1].lower()
    return re.sub(r"[^a-z0-9.-]+", "-", last).strip("-.") or "model"


def resolve_alias(model: str, aliases: Mapping[str, str]) -> str:
    """The model that an operator's alias stands for; the name itself where there is none.

    A dated snapshot (`o4-mini-2025-04-16`) goes by the alias without its date, unless it has one of its own.
    """
    return aliases.get(model) or aliases.get(_SNAPSHOT.sub("", model)) or model
