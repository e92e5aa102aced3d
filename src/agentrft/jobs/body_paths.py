"""Where a field of the job document stands in the create body that the job came from, so that errors name what the user
wrote: `data.train` is `training_file`, `agent.tools.0` is `method.reinforcement.tools.0`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentrft.errors import UserError
from agentrft.jobs.spec import Agent, Audit, Data, Method, Training
from agentrft.tools import Guardrails

FILES: Mapping[str, tuple[str, str]] = {
    "supervised": ("demonstrations", "demonstrations_validation"),
    "dpo": ("preferences", "preferences_validation"),
    "reinforcement": ("train", "validation"),
}
"""By method: what `data` calls the files that a body names `training_file` and `validation_file`."""

_SECTIONS = {
    "data": Data,
    "agent": Agent,
    "training": Training,
    "audit": Audit,
    "guardrails": Guardrails,
    "method": Method,
}
_OURS = re.compile(
    r"(?<![\w./])(?:"
    + "|".join(rf"{name}\.(?:{'|'.join(model.model_fields)})" for name, model in _SECTIONS.items())
    + r")\b(?:\.\w+)*(?![\w/])"
)
"""A field of the job document as messages write it."""


def body_param(param: str | None, body: Mapping[str, Any]) -> str | None:
    """The field of the create body (or of a job's `request`) that a field of the job document was made from."""
    if param is None:
        return None
    for ours, theirs in _places(body):
        if param == ours or param.startswith(f"{ours}."):
            return theirs + param.removeprefix(ours)
    return param


def error_in_body(error: UserError, body: Mapping[str, Any], base_dir: Path | None = None) -> UserError:
    """The same error in the words of the create body; paths below `base_dir` lose it, since nobody outside knows it."""
    return UserError(
        message_in_body(error.message, body, base_dir), param=body_param(error.param, body), code=error.code
    )


def message_in_body(message: str, body: Mapping[str, Any], base_dir: Path | None = None) -> str:
    """A message about the job document, in the words of the create body."""
    if base_dir is not None:
        message = message.replace(f"{base_dir}/", "")
    return _OURS.sub(lambda found: body_param(found[0], body) or found[0], message)


def method_section(body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The type of a body's method (`supervised` where it names none), and its section."""
    method = body.get("method")
    if not isinstance(method, Mapping):
        return "supervised", {}
    kind = method.get("type")
    if not isinstance(kind, str):
        return "supervised", {}
    section = method.get(kind)
    return kind, section if isinstance(section, Mapping) else {}


def _places(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(field of the job document, field of the body), the more special ones first."""
    kind, section = method_section(body)
    under = f"method.{kind}"
    hyperparameters = section.get("hyperparameters") or {}
    old = body.get("hyperparameters") and not body.get("method")
    there = "hyperparameters" if old else f"{under}.hyperparameters"
    training = section.get("training") or {}
    places = [("method.type", "method.type")]
    for trained, held_out in FILES.values():
        places += [(f"data.{trained}", "training_file"), (f"data.{held_out}", "validation_file")]
    if "learning_rate" not in hyperparameters:
        places.append((f"{under}.hyperparameters.learning_rate", f"{there}.learning_rate_multiplier"))
    places.append((f"{under}.hyperparameters", there))
    if kind == "reinforcement":
        places.append(("agent.tools", f"{under}.tools"))
        if section.get("max_episode_steps") is not None:
            places.append(("agent.limits.max_turns", f"{under}.max_episode_steps"))
        if "steps" not in training:
            places.append(("training.steps", f"{there}.n_epochs"))
        if "group_size" not in training:
            places.append(("training.group_size", f"{there}.compute_multiplier"))
    ours = ("data", "agent", "guardrails", "training", "audit")
    return [*places, *((name, f"{under}.{name}") for name in ours)]
