"""Files that are there whole, or as they were before."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str, *, errors: str = "strict") -> Path:
    """Write UTF-8, replacing an older file in one step and making its folder; returns `path`.

    `errors` says what becomes of half a surrogate pair, as `open` takes it. Raises OSError. Nothing waits for the disk,
    so a loss of power may undo it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(text, encoding="utf-8", errors=errors)
    draft.replace(path)
    return path
