"""A job file as the create body of the API: the same job for a server, its files uploaded, its code inside.

The reverse of `create_body`. Numbers are sent as they hold here, defaults included, so that a server's own choice for
"auto" changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agentrft.errors import UserError
from agentrft.jobs.body_paths import FILES
from agentrft.jobs.spec import JobSpec
from agentrft.net.secrets import WITH_SECRETS

_SECTIONS = ("agent", "guardrails", "training", "audit")

Upload = Callable[[Path], str]
"""A file → its id at the server."""


def body_of(spec: JobSpec, base_dir: Path, upload: Upload) -> dict[str, Any]:
    """The create body of a job, its files uploaded; raises UserError for a file that is missing."""
    kind = spec.method.type
    given = spec.model_dump(mode="json", exclude_unset=True, context=WITH_SECRETS)
    method = given.get("method", {}).get(kind, {})
    section: dict[str, Any] = {**method, "hyperparameters": _hyperparameters(spec)}
    section |= {name: given[name] for name in _SECTIONS if name in given}
    uploads = _Uploads(base_dir, upload)
    if spec.agent.demos:
        section["agent"] = {**section["agent"], "demos": uploads.one(spec.agent.demos, "agent.demos")}
    if kind == "reinforcement":
        section = _reinforcement(section, spec, base_dir)
    train, held_out = (getattr(spec.data, name) for name in FILES[kind])
    more = {"test": uploads.one(spec.data.test, "data.test")} if spec.data.test else {}
    splits = {name: uploads.one(file, f"data.splits.{name}") for name, file in spec.data.splits.items()}
    if more or splits:
        section["data"] = {**more, **({"splits": splits} if splits else {})}
    return {
        "model": spec.model,
        "suffix": spec.suffix,
        "seed": spec.seed,
        "metadata": dict(spec.metadata),
        "training_file": uploads.one(train, f"data.{FILES[kind][0]}"),
        "validation_file": uploads.one(held_out, f"data.{FILES[kind][1]}") if held_out else None,
        "method": {"type": kind, kind: section},
    }


class _Uploads:
    """Each file once, however often the job names it."""

    def __init__(self, base_dir: Path, upload: Upload) -> None:
        self._base_dir = base_dir
        self._upload = upload
        self._ids: dict[Path, str] = {}

    def one(self, file: str | None, param: str) -> str:
        path = (self._base_dir / (file or "")).resolve()
        if file is None or not path.is_file():
            got = "the job names none" if file is None else f"no file {path}"
            raise UserError(f"{param}: {got}; expected a JSONL file. Add it", param=param, code="file_not_found")
        if path not in self._ids:
            self._ids[path] = self._upload(path)
        return self._ids[path]


def _hyperparameters(spec: JobSpec) -> dict[str, Any]:
    method = getattr(spec.method, spec.method.type)
    values = method.hyperparameters.model_dump(mode="json", exclude_none=True)
    if "n_epochs" in values and "n_epochs" not in method.hyperparameters.model_fields_set:
        values["n_epochs"] = math.ceil(values["n_epochs"])  # the API has whole passes; the job's first event tells it
    return values


def _reinforcement(section: dict[str, Any], spec: JobSpec, base_dir: Path) -> dict[str, Any]:
    """OpenAI's places for what the job file keeps elsewhere; code that stands in files goes along."""
    agent = dict(section.get("agent", {}))
    steps = {"steps": spec.training.steps, "group_size": spec.training.group_size}
    made = {
        **section,
        "agent": agent,
        "tools": agent.pop("tools", []),
        "training": {**section.get("training", {}), **steps},
        "grader": _inline(section["grader"], base_dir),
    }
    if made.get("audit"):
        audit = dict(made["audit"])
        made["audit"] = {**audit, "grader": _inline(audit["grader"], base_dir)} if audit.get("grader") else audit
    return made


def _inline(grader: Mapping[str, Any], base_dir: Path) -> dict[str, Any]:
    """The grader with its source in place of the file that holds it."""
    if grader.get("graders"):
        return {**grader, "graders": {name: _inline(part, base_dir) for name, part in grader["graders"].items()}}
    if not grader.get("source_file"):
        return dict(grader)
    path = base_dir / grader["source_file"]
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the grader's file {path} cannot be read ({error}); expected Python source. Mend `source_file`",
            param="method.reinforcement.grader.source_file",
            code="file_not_found",
        ) from None
    return {**{key: value for key, value in grader.items() if key != "source_file"}, "source": source}
