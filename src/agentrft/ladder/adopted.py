"""A job with the edits that an optimisation adopted, while the user's own file stays as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from agentrft.jobs.load import parse_job
from agentrft.jobs.spec import JobSpec
from agentrft.ladder.optimise import CHANGES, Task, edit_of
from agentrft.optimise import edited

_FILE_KEYS = frozenset(
    {
        "model",
        "train",
        "validation",
        "test",
        "demonstrations",
        "demonstrations_validation",
        "preferences",
        "preferences_validation",
        "splits",
        "demos",
        "target",
        "source_file",
        "approver",
        "plugins",
        "command",
    }
)
"""Keys of the job document under which files may be named; what names no file there stays as it is."""


def adopted_job(task: Task, found: Path, folder: Path) -> JobSpec:
    """The job with the edits in the optimisation's folder `found`; paths start where those of the user's file do.

    `folder` gets what the edits bring, and a `job.yaml` that can be used from there.
    """
    hunks = json.loads((found / CHANGES).read_text(encoding="utf-8"))["hunks"]
    edits = [edit_of(hunk) for hunk in hunks]
    document = edited(task.document, edits)
    files = {name: text for edit in edits for name, text in edit.files.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    demos = document.get("agent", {}).get("demos")
    if demos in files:
        document["agent"]["demos"] = str(folder / demos)
    spec = parse_job(document, source=f"{task.path} with adopted edits")
    head = f"# {task.path} with what was adopted, made by `agentrft climb`. The file itself: `agentrft apply`.\n"
    text = yaml.safe_dump(anchored(document, task.base_dir), sort_keys=False, allow_unicode=True)
    path = folder / "job.yaml"
    path.touch(mode=0o600)  # the user's file may hold headers and keys
    path.write_text(head + text, encoding="utf-8")
    return spec


def anchored(document: Mapping[str, Any], base_dir: Path) -> dict[str, Any]:
    """The job document with absolute paths: it means the same wherever it is kept."""
    made = {key: _anchored(value, base_dir, key in _FILE_KEYS) for key, value in document.items()}
    for binding in made.get("agent", {}).get("tools", []):
        if binding.get("type") == "mcp" and binding.get("command"):
            binding["cwd"] = str(base_dir / (binding.get("cwd") or "."))
    return made


def _anchored(value: Any, base_dir: Path, names_file: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _anchored(part, base_dir, names_file or key in _FILE_KEYS) for key, part in value.items()}
    if isinstance(value, list):
        return [_anchored(part, base_dir, names_file) for part in value]
    if not names_file or not isinstance(value, str) or not value:
        return value
    file, colon, name = value.partition(":") if not (base_dir / value).exists() else (value, "", "")
    return f"{base_dir / file}{colon}{name}" if (base_dir / file).exists() and file else value
