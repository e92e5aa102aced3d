"""What a climb has done so far, in a file beside its figures."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentrft.writing import write_whole


@dataclass(slots=True, kw_only=True)
class LadderState:
    """Progress of one climb."""

    folder: Path
    jobs: dict[str, str] = field(default_factory=dict)
    """Stage → job id."""
    train_s: dict[str, float] = field(default_factory=dict)
    """Stage → training wall time, over all sittings; the whole ladder keeps that of its other pieces here too."""
    episodes: dict[str, int] = field(default_factory=dict)
    """Piece of the whole ladder → episodes that it played."""
    wall_s: float = 0.0
    """Of everything, over all sittings."""
    is_complete: bool = False

    @classmethod
    def open(cls, folder: Path) -> LadderState:
        """The climb of that folder, or a new one."""
        path = folder / "state.json"
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return cls(folder=folder, **document)

    def save(self) -> None:
        """Keep it, whole or not at all."""
        document = {name: getattr(self, name) for name in ("jobs", "train_s", "episodes", "wall_s", "is_complete")}
        write_whole(self.folder / "state.json", json.dumps(document, indent=1))


def open_ladder(ladders: Path, key: str, *, again: bool = False) -> LadderState:
    """The newest climb of that key, or a new one; `again` makes a new one when the newest is complete."""
    done = sum(1 for _ in ladders.glob(f"{key}-*/state.json"))
    state = LadderState.open(ladders / f"{key}-{max(done, 1)}")
    return LadderState.open(ladders / f"{key}-{done + 1}") if again and state.is_complete else state
