"""What holds a sandbox in, as measured at its start, and the rule by which it is enough."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

Isolation = Literal["jail", "monty", "process"]
"""`jail`: every layer below that the machine has, refused when they are too few. `monty`: an interpreter of a part of
Python that cannot reach the machine. `process`: a plain process."""

LAYERS = {
    "user": "user namespace",
    "pid": "process namespace",
    "net": "network namespace",
    "mnt": "mount namespace",
    "ipc": "IPC namespace",
    "uts": "host-name namespace",
    "root": "private read-only root",
    "landlock": "Landlock",
    "seccomp": "system-call filter",
    "no_new_privs": "no new privileges",
    "capabilities": "no capabilities",
    "nobody": "runs as nobody",
    "limits": "resource limits",
}
"""Every layer and its name for people."""

_ALWAYS = ("seccomp", "no_new_privs", "capabilities", "limits")
_WORLD = ("user", "pid", "net", "mnt", "root")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a sandbox's worker found about itself when it started."""

    isolation: Isolation
    enforced: tuple[str, ...] = ()
    """Keys of LAYERS whose effect was seen, not only asked for."""
    missing: Mapping[str, str] = field(default_factory=dict[str, str])
    """Keys of LAYERS that do not hold, and why; the isolation itself where no worker of it could start."""
    holes: tuple[str, ...] = ()
    """Forbidden things that a confined process could do all the same."""

    @property
    def refusal(self) -> str | None:
        """Why untrusted code must not run here; None when it may, or when nobody asked for a confined process."""
        if self.isolation in self.missing:
            return self.missing[self.isolation]
        if self.isolation == "process":
            return None
        if self.isolation == "jail" and (lacking := self._lacking()):
            return f"this machine does not enforce enough layers: {_few(lacking)}"
        if self.holes:
            return f"a confined process could still do what it must not: {_few(self.holes)}"
        return None

    def _lacking(self) -> list[str]:
        lacking = [name for name in _ALWAYS if name not in self.enforced]
        if "landlock" not in self.enforced and not all(name in self.enforced for name in _WORLD):
            lacking += ["landlock", *(name for name in _WORLD if name not in self.enforced)]
        return [f"no {LAYERS[name]} ({self.missing.get(name, 'it has no effect')})" for name in lacking]

    def as_json(self) -> bytes:
        found = {"enforced": self.enforced, "missing": dict(self.missing), "holes": self.holes}
        return json.dumps({"isolation": self.isolation, **found}).encode()


def _few(texts: Sequence[str], most: int = 4) -> str:
    more = f"; and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


def read_report(frame: bytes) -> Report:
    """The report that a worker sent; raises ValueError for anything else."""
    found = json.loads(frame)
    if not isinstance(found, dict) or found.get("isolation") not in get_args(Isolation):
        raise ValueError("not a report")
    enforced, missing, holes = found["enforced"], found["missing"], found["holes"]
    if not set(enforced) <= set(LAYERS) or not all(isinstance(text, str) for text in [*missing.values(), *holes]):
        raise ValueError("not a report")
    return Report(isolation=found["isolation"], enforced=tuple(enforced), missing=missing, holes=tuple(holes))
