"""What an unfinished run has to remember, in a file beside its result: ids, and seconds over all of its sittings."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Note:
    """One run's note."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def keep(self, **values: Any) -> None:
        """Remember these, whole or not at all."""
        self.known |= values
        write_json(self.path, self.known)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the seconds spent inside to what is known under `name`; those before a kill are lost."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.keep(**{name: self.known.get(name, 0.0) + time.monotonic() - started})


def write_json(path: Path, document: Any) -> None:
    """Write it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
