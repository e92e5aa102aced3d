"""Diagnoses that are kept: which job has the episodes of which settings, and the report in the job's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrft.errors import StoreFault, UserError
from agentrft.jobs.bundle import bundle_hash
from agentrft.jobs.service import StoredJob, create_job, job_folder, stored_job
from agentrft.jobs.spec import JobSpec
from agentrft.protocols import ChatEndpoint, Store
from agentrft.types import Item
from agentrft.writing import write_whole

FILE = "diagnosis.json"
PAGE = "diagnosis.html"
_MOST_JOBS_SEARCHED = 10_000
_ENDED = ("failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a diagnosis depends on; the same settings go on with each other's episodes."""

    split: str
    items: Sequence[Item]
    samples: int
    model: str
    """As the user named it."""
    endpoint: ChatEndpoint | None = None
    """Where the model is, when it is not ours."""

    def key(self, spec: JobSpec, base_dir: Path) -> str:
        """Sixteen hex digits of everything that changes an episode or its grade."""
        document = {
            "agent": subject_of(spec, base_dir),
            "model": self.model,
            "at": self.endpoint.base_url if self.endpoint else None,
            "temperature": self.endpoint.temperature if self.endpoint else 1.0,
            "split": self.split,
            "samples": self.samples,
            "items": [_digest_of(item) for item in self.items],
            "penalties": spec.training.penalties.model_dump(mode="json"),
            "seed": spec.seed,
        }
        return _sha(document)[:16]


def subject_of(spec: JobSpec, base_dir: Path) -> str:
    """What a diagnosis is about, whoever plays and on whichever items: the bundle and the grader, as one hash."""
    grader = spec.method.reinforcement.grader.model_dump(mode="json") if spec.method.reinforcement else None
    files = {name: _file_digest(base_dir / name) for name in sorted(set(_source_files(grader)))}
    return _sha({"bundle": bundle_hash(spec, base_dir), "grader": grader, "files": files})[:16]


def job_for(store: Store, spec: JobSpec, base_dir: Path, settings: Settings, *, again: bool = False) -> StoredJob:
    """The evaluation job that has, or will have, the episodes of these settings; `again` makes a new one."""
    key = settings.key(spec, base_dir)
    if not again:
        for job in _diagnoses(store):
            if job["diagnosis"]["key"] == key and _is_usable(job):
                return stored_job(store, job["id"])
    mark = {"key": key, "subject": subject_of(spec, base_dir), "split": settings.split}
    extra = {"diagnosis": mark}
    return create_job(store, spec, base_dir, kind="evaluation", start_from=settings.model, extra=extra)


def latest_diagnosis(job: StoredJob) -> dict[str, Any] | None:
    """The newest diagnosis of that job as JSON data (docs/diagnose.md has its fields); None when there is none."""
    return _read(job.id)


def find_diagnosis(store: Store, spec: JobSpec, base_dir: Path) -> dict[str, Any]:
    """The newest complete diagnosis of this bundle with this grader, whoever played.

    Raises UserError (`diagnosis_missing`) when there is none, and says so when the agent was another one then.
    """
    subject, others = subject_of(spec, base_dir), 0
    for job in _diagnoses(store):
        if job["diagnosis"]["subject"] == subject:
            document = _read(job["id"])
            if document is not None:
                return document
        others += job.get("base_dir") == str(base_dir) and job["diagnosis"]["subject"] != subject
    raise missing_diagnosis("this job", others)


def missing_diagnosis(what: str, others: int = 0) -> UserError:
    """The error of a decision without a diagnosis; `others` of another bundle or grader do not count."""
    got = f"{others} of an agent or grader that has changed since" if others else "none"
    return UserError(
        f"{what} has no complete diagnosis to decide from; got {got}, expected one of prompt, tools, guardrails and "
        "grader as they are now. Next: `agentrft diagnose JOB`",
        param="job",
        code="diagnosis_missing",
    )


def write_diagnosis(job: StoredJob, document: dict[str, Any]) -> Path:
    """Keep it in the job's folder, whole or not at all; raises StoreFault when the disk refuses."""
    path = job.folder / FILE
    try:
        return write_whole(path, json.dumps(document, indent=1, allow_nan=False))
    except OSError as error:
        raise StoreFault(f"could not write {path}: {error}; free disk space") from error


def _is_usable(job: Mapping[str, Any]) -> bool:
    """Whether it can go on, or has its result."""
    return job["status"] not in _ENDED and (job["status"] != "succeeded" or _read(job["id"]) is not None)


def _read(job_id: str) -> dict[str, Any] | None:
    path = job_folder(job_id) / FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreFault(f"{path} cannot be read: {error}; run `agentrft diagnose` again") from error


def _diagnoses(store: Store) -> Iterator[dict[str, Any]]:
    """Jobs that `job_for` made, newest first."""
    return (job for job in store.list_jobs(limit=_MOST_JOBS_SEARCHED) if "diagnosis" in job)


def _source_files(document: Any) -> Iterator[str]:
    """Files that a grader document names, those of its parts too."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name == "source_file" and isinstance(value, str):
                yield value
            else:
                yield from _source_files(value)


def _digest_of(item: Item) -> str:
    messages = [[message.role, message.content] for message in item.messages]
    return _sha([item.id, messages, [tool.name for tool in item.tools], dict(item.fields)])[:16]


def _file_digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _sha(document: Any) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
