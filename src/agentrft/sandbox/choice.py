"""Which sandbox untrusted Python gets on this machine: the jail; where that cannot be had, Monty; else none.

WebAssembly is not among them: docs/decisions/0016-sandboxes.md says why.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from agentrft.errors import SandboxFault
from agentrft.sandbox.layers import Isolation
from agentrft.sandbox.process import ForkServer, Program
from agentrft.sandbox.start import measured, own_interpreter

_LOADING_S = 30.0

_NAMES = {"jail": "jail", "monty": "Monty", "process": "process"}

Wanted = Literal["auto", "jail", "monty", "process"]
"""`auto`: the jail, or Monty where the machine cannot enforce one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A sandbox, or none, and why."""

    isolation: Isolation | None
    """None: there is nothing here that the code may be trusted to."""
    lacking: tuple[str, ...] = ()
    """Why what comes first cannot be had: `no jail: …`, `no Monty: …`."""

    @property
    def name(self) -> str:
        """For people: `a jail`, `a jail with /opt/graders/bin/python`, `Monty 1.4.0`."""
        if self.isolation == "monty":
            return f"Monty {importlib.metadata.version('pydantic-monty-client')}"
        name = {"jail": "a jail", "process": "a plain process", None: "nothing"}[self.isolation]
        return f"{name} with {own_interpreter()}" if own_interpreter() else name


def choose(wanted: Wanted, program: Program | None = None) -> Choice:
    """The sandbox for code that asks for this one, and can be run in it; measured once in a process's life, 0.2 s each.

    With a program, Monty is chosen only where it can run that: the program is loaded in it to see. It never stands in
    for an interpreter that the operator has named.
    """
    order: tuple[Isolation, ...] = ("jail", "monty") if wanted == "auto" else (wanted,)
    if wanted == "auto" and own_interpreter():
        order = ("jail",)
    lacking: list[str] = []
    for isolation in order:
        refusal = measured(isolation).refusal
        if refusal is None and isolation == "monty" and program is not None and (gaps := _gaps(program)):
            refusal = f"it cannot run this code, which needs {', '.join(gaps)}"
        if refusal is None:
            return Choice(isolation=isolation, lacking=tuple(lacking))
        lacking.append(f"no {_NAMES[isolation]}: {refusal}")
    return Choice(isolation=None, lacking=tuple(lacking))


def _gaps(program: Program) -> list[str]:
    async def ask() -> list[str]:
        server = ForkServer(isolation="monty", max_children=1)
        try:
            return await server.gaps(program, timeout_s=_LOADING_S)
        except SandboxFault as fault:
            return [f"more than loading it gave: {fault}"]
        finally:
            await server.close()

    with ThreadPoolExecutor(max_workers=1) as apart:  # the caller may be inside an event loop
        return apart.submit(lambda: asyncio.run(ask())).result()
