"""The bundle: everything beside the weights that decides how the agent behaves, as one hash.

A model is trained with a prompt, tools, limits and guardrails, and is only known to work with them. So the hash is kept
with every checkpoint, and whoever plays the result can see whether the bundle is still the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentrft.errors import UserError
from agentrft.jobs.spec import JobSpec


def bundle_hash(spec: JobSpec, base_dir: Path) -> str:
    """SHA-256 of `agent` and `guardrails` as canonical JSON, with the contents of the files that they name.

    Header values are left out: they are secrets, and change without changing the agent.
    """
    files = {name: _digest(base_dir / name) for name in sorted(set(_files(spec))) if (base_dir / name).is_file()}
    document: dict[str, Any] = {
        "agent": spec.agent.model_dump(mode="json"),
        "guardrails": spec.guardrails.model_dump(mode="json") if spec.guardrails else None,
        "files": files,
    }
    if spec.agent.demos is not None and (base_dir / spec.agent.demos).is_file():
        document["agent"]["demos"] = _digest(base_dir / spec.agent.demos)  # whatever it is called
    # Where order means something it is kept: arguments by position, rules of which the later one wins.
    for tool in document["agent"]["tools"]:
        if tool.get("parameters") is not None:
            tool["parameters"] = json.dumps(tool["parameters"])
    if spec.guardrails is not None:
        document["guardrails"]["tools"] = list(document["guardrails"]["tools"].items())
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_bundle(trained_with: str | None, spec: JobSpec, base_dir: Path, *, model: str) -> None:
    """Raise UserError when a model was trained with another bundle than the job's; None is not known, and passes."""
    if trained_with is None or trained_with == bundle_hash(spec, base_dir):
        return
    raise UserError(
        f"{model} was trained with another agent: prompt, tools, limits, guardrails or one of their files have changed "
        f"since (bundle {trained_with[:12]}, now {bundle_hash(spec, base_dir)[:12]}). Expected the same, because it is "
        "only known to work with those. Use `--force` to go on all the same, or take the job as it was",
        param="agent",
        code="bundle_changed",
    )


def _files(spec: JobSpec) -> Iterator[str]:
    """Names of files in `agent` and `guardrails`, relative to the job."""
    for binding in spec.agent.tools:
        if binding.type == "python":
            yield binding.target.rpartition(":")[0]
        elif binding.type == "mcp":
            # Those of its words that are files, from where it runs.
            yield from (str(Path(binding.cwd or ".") / word) for word in binding.command or ())
    if spec.guardrails is not None:
        named = [spec.guardrails.approver] if spec.guardrails.approver else []
        yield from (target.rpartition(":")[0] for target in (*named, *spec.guardrails.plugins))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
