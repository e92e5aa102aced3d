"""Checkpoints that are either whole or not there: written aside, hashed, synced, then renamed.

    checkpoints/step-00000012/   what Learner.save wrote, state.json (the loop's own), manifest.json (sizes, hashes)
    checkpoints/.tmp-…           a save under way, or one that a kill left behind
    checkpoints/bad-step-…       one that no longer verifies: set aside, never deleted, never loaded

Nothing here is a pickle. State is JSON; tensors are whatever the learner writes (safetensors).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrft.errors import StoreFault
from agentrft.protocols import Learner

_FORMAT = 1
_MANIFEST = "manifest.json"
_STATE = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One verified checkpoint."""

    step: int
    path: Path
    state: Mapping[str, Any]
    """What the loop saved beside the weights."""
    bundle: str | None = None
    """Hash of the agent it was trained with; None when that was not told."""

    @property
    def name(self) -> str:
        """`step-00000012`."""
        return self.path.name


class Checkpoints:
    """The checkpoints of one job."""

    def __init__(self, folder: Path, *, keep: int, bundle: str | None = None) -> None:
        """`keep` newest ones stay when older ones are pruned; each names the `bundle` that the agent is part of.

        Clears away saves that a kill left half done.
        """
        self.folder = folder
        self.bundle = bundle
        self._keep = keep
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(".tmp-*"):
            shutil.rmtree(unfinished)

    async def save(
        self, learner: Learner, step: int, state: Mapping[str, Any], *, keep_steps: Collection[int] = ()
    ) -> Checkpoint:
        """Write step `step`, then prune to the newest ones and those of `keep_steps`.

        Raises StoreFault when the disk refuses; earlier checkpoints are untouched then.
        """
        temporary, final = self.folder / f".tmp-{checkpoint_name(step)}", self.folder / checkpoint_name(step)
        try:
            shutil.rmtree(temporary, ignore_errors=True)  # of a save that failed half-way in this very process
            temporary.mkdir()
            await learner.save(temporary)
            (temporary / _STATE).write_text(json.dumps(state, indent=1))
            manifest = {"format": _FORMAT, "step": step, "bundle": self.bundle, "files": _hashes(temporary)}
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1))
            for path in [*temporary.rglob("*"), temporary]:
                _fsync(path)
            if final.exists():  # of an earlier life of this job, and older than what it resumed from
                shutil.rmtree(final)
            temporary.rename(final)
            _fsync(self.folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise StoreFault(f"could not save {final}: {error}; free disk space, then resume the job") from error
        self._prune({step, *keep_steps})
        return Checkpoint(step=step, path=final, state=state, bundle=self.bundle)

    def newest(self) -> Checkpoint | None:
        """The newest one that verifies, or None; those that do not are set aside on the way."""
        for path in sorted(self.folder.glob("step-*"), reverse=True):
            if checkpoint := verified(path):
                return checkpoint
            self._set_aside(path)
        return None

    def at(self, step: int) -> Checkpoint | None:
        """The one of that step, if it is there and verifies."""
        return verified(self.folder / checkpoint_name(step))

    def first_good(self, steps: Iterable[int]) -> Checkpoint | None:
        """The first of these steps that is there and verifies."""
        return next((found for step in steps if (found := self.at(step))), None)

    def _prune(self, keep_steps: Collection[int]) -> None:
        for path in sorted(self.folder.glob("step-*"))[: -self._keep]:
            if path.name not in {checkpoint_name(step) for step in keep_steps}:
                # Renamed first: a kill half-way through leaves no folder that looks like a checkpoint.
                doomed = path.rename(self.folder / f".tmp-old-{path.name}")
                shutil.rmtree(doomed)

    def _set_aside(self, path: Path) -> None:
        name = f"bad-{path.name}"
        count = sum(1 for _ in self.folder.glob(f"{name}*"))
        path.rename(self.folder / (f"{name}.{count}" if count else name))


def verified(path: Path) -> Checkpoint | None:
    """The checkpoint in the folder `path` if every file has the size and SHA-256 of its manifest, else None."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        found = _hashes(path)
        if manifest["format"] != _FORMAT or any(found.get(name) != file for name, file in manifest["files"].items()):
            return None
        state = json.loads((path / _STATE).read_text())
        return Checkpoint(step=manifest["step"], path=path, state=state, bundle=manifest.get("bundle"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hashes(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _MANIFEST)
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checkpoint_name(step: int) -> str:
    """`step-00000012`: the folder, and the stage under which its validation is stored."""
    return f"step-{step:08d}"
