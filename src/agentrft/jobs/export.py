"""Weights as a file to take away: a tar of a PEFT adapter, or of a whole model with the adapter merged into it.

The archive is made while it is sent: nothing is written but, for a merged model, one folder that is removed again. What
training needs to go on (the optimiser, the loop's state) stays here.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrft.errors import BoundaryError, UserError
from agentrft.home import home
from agentrft.jobs.models import CARD, TOKENIZER_FILES, Weights

_ADAPTER_CONFIG = "adapter_config.json"
_TAKEN = ("adapter_model.safetensors", "model.safetensors", "config.json", *TOKENIZER_FILES, CARD)
_CHUNK_BYTES = 1 << 20
_BLOCK_BYTES = 512
_MERGE_S = 1800.0
_LEFT_BEHIND_S = 24 * 3600
_ONE_AT_A_TIME = threading.Lock()


@dataclass(slots=True)
class Archive:
    """A tar that is made while it is read; `close` it, whatever became of it."""

    name: str
    entries: Sequence[tuple[str, Path | bytes]]
    """Name in the archive, and the file, or its contents."""
    cleanup: ExitStack

    @property
    def n_bytes(self) -> int:
        """Of the whole archive."""
        headers = sum(len(_header(name, content)) for name, content in self.entries)
        padded = sum(-(-_size(content) // _BLOCK_BYTES) * _BLOCK_BYTES for _, content in self.entries)
        return headers + padded + 2 * _BLOCK_BYTES

    def pieces(self) -> Iterator[bytes]:
        """The archive from its beginning to its end; closes it, also when nobody reads on."""
        try:
            for name, content in self.entries:
                yield _header(name, content)
                yield from _padded(content)
            yield bytes(2 * _BLOCK_BYTES)
        finally:
            self.close()

    def close(self) -> None:
        """Remove what was made for it; safe to call twice."""
        self.cleanup.close()


def adapter_archive(weights: Weights, *, name: str, base_model: str, card: Mapping[str, Any]) -> Archive:
    """The trained weights as they are: a PEFT adapter, or a whole model with its tokenizer.

    `base_model` is the name that the adapter's configuration gets for what it belongs to, in place of a folder of this
    machine.
    """
    folder = _folder(weights)
    entries = _entries(folder, name, card)
    config = folder / _ADAPTER_CONFIG
    if config.is_file():
        document = {**json.loads(config.read_text(encoding="utf-8")), "base_model_name_or_path": base_model}
        entries.append((f"{name}/{_ADAPTER_CONFIG}", json.dumps(document, indent=2, sort_keys=True).encode()))
    else:
        known = {entry for entry, _ in entries}
        tokenizer = ((f"{name}/{file}", weights.folder / file) for file in TOKENIZER_FILES)
        entries += [entry for entry in tokenizer if entry[0] not in known and entry[1].is_file()]
    return Archive(name, entries, ExitStack())


def merged_archive(weights: Weights, *, name: str, base_model: str, card: Mapping[str, Any]) -> Archive:
    """A whole model with the adapter merged into it, its tokenizer beside it; made by a process of its own.

    Raises UserError where torch is not installed, BoundaryError when merging fails.
    """
    if not (_folder(weights) / _ADAPTER_CONFIG).is_file():
        return adapter_archive(weights, name=name, base_model=base_model, card=card)
    _sweep()
    target = home() / "tmp" / f"merged-{secrets.token_hex(8)}"
    cleanup = ExitStack()
    cleanup.callback(shutil.rmtree, target, ignore_errors=True)
    try:
        _merge(weights, target)
        return Archive(name, _entries(target, name, card), cleanup)
    except BaseException:
        cleanup.close()
        raise


def _sweep() -> None:
    """Take away what a server that was killed has left half-way."""
    oldest = time.time() - _LEFT_BEHIND_S
    for path in (home() / "tmp").glob("merged-*"):
        if path.stat().st_mtime < oldest:
            shutil.rmtree(path, ignore_errors=True)


def _folder(weights: Weights) -> Path:
    """Where the trained weights are: a model whose weights were all trained stands alone."""
    return weights.trained or weights.folder


class MergeFailed(BoundaryError):
    """The process that merges weights failed; its last words say why."""

    boundary = "export"


def _merge(weights: Weights, target: Path) -> None:
    """Write base and adapter as one model into `target`; one at a time, because it takes a lot of memory."""
    from agentrft.runtime.machine import INSTALL_TORCH, missing_torch_packages

    if missing := missing_torch_packages():
        raise UserError(
            f"merging weights needs {', '.join(missing)}, which this server does not have; take the adapter "
            f"(format=adapter) and merge it elsewhere, or have the operator install it: {INSTALL_TORCH}",
            param="format",
            code="torch_missing",
        )
    command = [
        sys.executable,
        "-m",
        "agentrft.engines.torch_merge",
        str(weights.folder),
        str(weights.trained),
        str(target),
    ]
    with _ONE_AT_A_TIME:
        target.mkdir(parents=True)
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_MERGE_S)
        except subprocess.CalledProcessError as error:
            raise MergeFailed(f"{weights.name} could not be merged: {error.stderr.strip()[-500:]}") from error
        except subprocess.TimeoutExpired as error:
            raise MergeFailed(f"{weights.name} could not be merged within {_MERGE_S:g} s") from error


def _entries(folder: Path, name: str, card: Mapping[str, Any]) -> list[tuple[str, Path | bytes]]:
    """What a user loads elsewhere, and the card that says what it is; shards of large models among it."""
    names = dict.fromkeys([*_TAKEN, *sorted(path.name for path in folder.glob("model-*.safetensors"))])
    names["model.safetensors.index.json"] = None
    found: list[tuple[str, Path | bytes]] = [
        (f"{name}/{file}", folder / file) for file in names if file != CARD and (folder / file).is_file()
    ]
    return [*found, (f"{name}/{CARD}", (json.dumps(dict(card), indent=2) + "\n").encode())]


def _header(name: str, content: Path | bytes) -> bytes:
    """A block, or three where the name has more than a hundred bytes."""
    header = tarfile.TarInfo(name)
    header.size = _size(content)
    header.mode = 0o644
    return header.tobuf(tarfile.GNU_FORMAT)


def _padded(content: Path | bytes) -> Iterator[bytes]:
    n_bytes = _size(content)
    if isinstance(content, bytes):
        yield content
    else:
        with content.open("rb") as file:
            left = n_bytes
            while left and (piece := file.read(min(_CHUNK_BYTES, left))):
                left -= len(piece)
                yield piece
    yield bytes(-n_bytes % _BLOCK_BYTES)


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
