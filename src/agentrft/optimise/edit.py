"""Edits: all that may differ between two candidates, as changes to the job document.

An edit sets a few places of the document to values, adds sentences to texts, and may bring a file. A candidate is the
job with some edits, at most one for each component; the job itself is the candidate with none.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from agentrft.errors import UserError

Place = tuple[str, ...]
"""Keys from the document's top, for example `("agent", "tool_docs", "find", "description")`."""
Kind = Literal["prompt", "tools", "outputs", "guards", "demos"]
KINDS: tuple[Kind, ...] = ("prompt", "tools", "outputs", "guards", "demos")


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One change that can be accepted or left by itself."""

    kind: Kind
    component: str
    """What it changes: `system`, `tool:find:day`, `output:read`, …; two edits of one component exclude each other."""
    sets: tuple[tuple[Place, Any], ...] = ()
    """Places and the values, plain JSON, that they get."""
    adds: tuple[tuple[Place, str, str], ...] = ()
    """Places, the text that holds where the document has none there, and the sentence that is added."""
    why: str
    """What it was proposed for, for people."""
    evidence: tuple[str, ...] = ()
    """Ids of episodes that show it."""
    share: float = 0.0
    """How many of the failed episodes showed it: what it can gain at most, so search looks there first."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Name and contents of files that it brings, beside the job file."""

    @property
    def key(self) -> str:
        """Eight hex digits that name what the edit does."""
        text = json.dumps([self.sets, self.adds, dict(self.files)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def places(self) -> tuple[Place, ...]:
        """Everything in the document that it changes."""
        return (*(place for place, _ in self.sets), *(place for place, _, _ in self.adds))


def edited(document: Mapping[str, Any], edits: Iterable[Edit]) -> dict[str, Any]:
    """The document with the edits; sections that are not there are made."""
    result = copy.deepcopy(dict(document))
    apply_to(result, edits, _set)
    return result


def apply_to(document: Any, edits: Iterable[Edit], put: Callable[[Any, Place, Any], None]) -> None:
    """Make the edits by `put(document, place, value)`: first what replaces a text, then what is added to it."""
    chosen = list(edits)
    for place, value in (one for edit in chosen for one in edit.sets):
        put(document, place, value)
    for place, told, sentence in (one for edit in chosen for one in edit.adds):
        put(document, place, extended(str(value_at(document, place) or told), sentence))


def extended(text: str, sentence: str) -> str:
    """A text with a sentence more; the text as it is where it has that sentence already."""
    text = text.strip()
    if not text or sentence in text:
        return text or sentence
    return f"{text}{'' if text[-1] in '.!?:;' else '.'} {sentence}"


def value_at(document: Mapping[str, Any], place: Place) -> Any:
    """What stands at the place; None where nothing does."""
    value: Any = document
    for key in place:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def is_locked(component: str, locks: Iterable[str]) -> bool:
    """Whether a lock, a glob over components (`tool:refund:*`), keeps it as it is."""
    return any(fnmatchcase(component, lock) for lock in locks)


def read_kinds(given: Iterable[str]) -> tuple[Kind, ...]:
    """The kinds of these names; raises UserError for a name that is none's."""
    known: dict[str, Kind] = {kind: kind for kind in KINDS}
    names = list(given)
    for name in names:
        if name not in known:
            raise UserError(
                f"there is nothing called {name!r} to search; expected some of {', '.join(KINDS)}. Mend `--space`",
                param="--space",
            )
    return tuple(known[name] for name in names)


def _set(document: dict[str, Any], place: Place, value: Any) -> None:
    for key in place[:-1]:
        inner = document.get(key)
        # A copy: where YAML has an alias, two places share what they hold.
        document[key] = dict(inner) if isinstance(inner, dict) else {}
        document = document[key]
    document[place[-1]] = copy.deepcopy(value)
