"""What a server tells its workers, beside the job: in their environment, which only the same user can read."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Self

from agentrft.net.policy import NetworkPolicy

ENVIRONMENT = "AGENTRFT_WORKER"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """As the server's operator decided."""

    store: str | None = None
    """URL of the database, its password included; None for the one under `AGENTRFT_HOME`."""
    allow: tuple[str, ...] | None = None
    """What tools and graders may reach beside public addresses; None for everything but cloud metadata."""

    def network(self) -> NetworkPolicy | None:
        """The policy; None for what a person at the keyboard may reach."""
        return None if self.allow is None else NetworkPolicy.public(self.allow, param="network.allow")

    def environment(self) -> dict[str, str]:
        """The variable that `of_environment` reads."""
        return {ENVIRONMENT: json.dumps(asdict(self))}

    @classmethod
    def of_environment(cls) -> Self:
        """What this process was told; the defaults where it was told nothing."""
        document = json.loads(os.environ.get(ENVIRONMENT, "{}"))
        allow = document.get("allow")
        return cls(store=document.get("store"), allow=None if allow is None else tuple(allow))
