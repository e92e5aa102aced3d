"""The faults of the detectors' benchmark: what is injected where, and into which class it must be sorted.

Wordings, variants and forced replies differ between seed 0 (development) and seed 1 (held out).
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agentrft.types import Item, Message, ToolSpec
from harness.failing_tools import Call, OnCall, StaticTool

TASKS = ("filenav", "parcels", "units", "shopdb")

_OUTAGES = (
    ("HTTP 503 Service Unavailable", '{"error": "internal server error", "code": 500}', "Error: connection refused"),
    (
        "upstream connect error or disconnect/reset before headers",
        "psycopg2.OperationalError: server closed the connection unexpectedly",
        "错误：服务暂时不可用，请稍后重试",
        "Erreur interne du serveur (500)",
        "java.net.SocketException: Connection reset",
    ),
)
_SLOW = (
    ("the request timed out after 30 s", "Error: deadline exceeded"),
    ("ETIMEDOUT while reading from upstream", "エラー: タイムアウトしました", "Zeitüberschreitung der Anforderung"),
)
_FORMAT: Mapping[str, tuple[str, str]] = {
    "filenav": ("path must look like file:/folder", "Ungültiger Wert: erwartet wird ein Pfad der Form file:/ordner"),
    "parcels": ("zone or text must be in capitals with #", "valeur invalide : le texte doit commencer par #"),
    "units": ("unit must be an ISO code such as KMT", "不支持的格式，应为 ISO 代码"),
    "shopdb": ("query must end with a semicolon", "la consulta no es válida: se esperaba un punto y coma"),
}
_NOISE = "generated file, do not edit by hand; owner platform team; see the handbook for the rules of this folder. "


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One condition under which the real model plays."""

    name: str
    kind: str
    """The class that it must be sorted into; empty for the control."""
    tasks: tuple[str, ...] = TASKS
    on_call: Callable[[str, int], OnCall] | None = None
    """(task, seed) → the fault in front of the tools."""
    on_spec: Callable[[str, int], Callable[[ToolSpec], ToolSpec]] | None = None
    on_item: Callable[[str, int, Item, random.Random], Item | None] | None = None
    """The item with the defect, or None to leave it."""
    grader: str = ""
    """`raises` or `noisy`."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    force: str = ""
    """Name of a forced behaviour (`forced_replies.py`)."""
    twin: StaticTool | None = None
    items: int = 4
    members: int = 8


def _outage(task: str, seed: int) -> OnCall:
    async def on_call(call: Call) -> str:
        if call.rng.random() < 0.25:
            call.touch()
            text = call.rng.choice(_OUTAGES[seed])
            if call.rng.random() < 0.5:
                return text
            raise ValueError(text)
        return await call.ask()

    return on_call


def _crash(task: str, seed: int) -> OnCall:
    async def on_call(call: Call) -> str:
        if call.rng.random() < 0.25:
            call.touch()
            raise (RuntimeError, OSError)[seed](("pool exhausted", "Stale file handle")[seed])
        return await call.ask()

    return on_call


def _lie(task: str, seed: int) -> OnCall:
    async def on_call(call: Call) -> str:
        said = await call.ask()
        if call.rng.random() < 0.12 and re.search(r"\d", said):
            call.touch()
            return re.sub(r"\d", lambda digit: str((int(digit[0]) + 3 + seed) % 10), said)
        return said

    return on_call


def _hang(task: str, seed: int) -> OnCall:
    async def on_call(call: Call) -> str:
        if call.rng.random() < 0.25:
            call.touch()
            await asyncio.sleep(5)
        return await call.ask()

    return on_call


def _slow(task: str, seed: int) -> OnCall:
    async def on_call(call: Call) -> str:
        if call.rng.random() < 0.3:
            call.touch()
            raise ValueError(call.rng.choice(_SLOW[seed]))
        return await call.ask()

    return on_call


def _reject(task: str, seed: int) -> OnCall:
    """A format that no description mentions, asked for on two thirds of the items."""

    async def on_call(call: Call) -> str:
        if random.Random(call.context.item.id).random() < 0.66:
            call.touch()
            raise ValueError(_FORMAT[task][seed])
        return await call.ask()

    return on_call


def _bury(task: str, seed: int) -> OnCall:
    """Noise in front of the output, so that the limit cuts what was asked for; every third item has none."""

    async def on_call(call: Call) -> str:
        said = await call.ask()
        # Listings stay as they are: without them the model never gets to what is cut.
        if call.name == "ls" or random.Random(call.context.item.id).random() < 0.33:
            return said
        return f"{_NOISE * (1 + seed)}\n{said}"

    return on_call


def _with_pattern(task: str, seed: int) -> Callable[[ToolSpec], ToolSpec]:
    """A defect of the schema: the first text argument must begin with something that nobody is told."""

    def on_spec(spec: ToolSpec) -> ToolSpec:
        properties = {name: dict(value) for name, value in spec.parameters["properties"].items()}
        name = next((n for n, value in properties.items() if value.get("type") == "string"), None)
        if name is None:
            return spec
        properties[name] |= ({"pattern": "^[A-Z]:"}, {"enum": ["A-1", "A-2"]})[seed]
        return replace(spec, parameters={**spec.parameters, "properties": properties})

    return on_spec


_RENAMED = {"grep": "search_lines", "find": "parcels_by_text", "convert": "to_unit", "sql": "run_select"}


def _renamed(task: str, seed: int) -> Callable[[ToolSpec], ToolSpec]:
    def on_spec(spec: ToolSpec) -> ToolSpec:
        new = _RENAMED.get(spec.name)
        near = spec.name + ("_", "2")[seed] if task in ("units", "shopdb") else new
        return replace(spec, name=near) if new else spec

    return on_spec


def _defect(task: str, seed: int, item: Item, rng: random.Random) -> Item | None:
    """Every fourth item: without what its prompt must name, or without what it asks for."""
    fields = dict(item.fields)
    if rng.random() >= 0.25:
        return None
    if task == "filenav" and seed == 0:
        return _reworded(item, str(fields["service"]), "it")
    if task == "filenav":
        tree = {folder: keys for folder, keys in fields["tree"].items() if not folder.endswith(f"/{fields['service']}")}
        return replace(item, fields=fields | {"tree": tree})
    if seed == 0:
        parcels = {name: line for name, line in fields["parcels"].items() if name != fields["parcel"]}
        return replace(item, fields=fields | {"parcels": parcels})
    return _reworded(item, str(fields["to"]), "its place")


def _reworded(item: Item, old: str, new: str) -> Item:
    messages = tuple(
        Message(role=m.role, content=(m.content or "").replace(old, new)) if m.role == "user" else m
        for m in item.messages
    )
    return replace(item, messages=messages)


_TEXT = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
TWIN = StaticTool(ToolSpec(name="lookup", description="Look TEXT up", parameters=_TEXT), "nothing known")

FAULTS: tuple[Fault, ...] = (
    Fault(name="control", kind=""),
    Fault(name="crash", kind="env_fault", on_call=_crash),
    Fault(name="outage", kind="env_fault", on_call=_outage),
    Fault(name="lie", kind="env_fault", on_call=_lie),
    Fault(name="hang", kind="timeout", on_call=_hang, limits={"tool_timeout_s": 0.15}, tasks=("filenav", "units")),
    Fault(name="slow", kind="timeout", on_call=_slow, tasks=("parcels", "shopdb")),
    Fault(name="grader raises", kind="grader_fault", grader="raises", tasks=("filenav", "parcels")),
    Fault(name="noisy grader", kind="grader_fault", grader="noisy", tasks=("units", "shopdb")),
    Fault(name="defect", kind="task_defect", on_item=_defect, tasks=("filenav", "parcels"), items=12, members=4),
    Fault(name="rejected", kind="bad_args", on_call=_reject),
    Fault(name="schema", kind="bad_args", on_spec=_with_pattern, tasks=("filenav", "parcels")),
    Fault(name="renamed", kind="unknown_tool", on_spec=_renamed),
    Fault(name="buried", kind="truncated_evidence", on_call=_bury, limits={"tool_output_tokens": 28}),
    Fault(name="few turns", kind="no_stop", limits={"max_turns": 2}, tasks=("parcels", "units")),
    Fault(name="short replies", kind="no_stop", limits={"max_reply_tokens": 7}, tasks=("filenav", "shopdb")),
    Fault(name="short context", kind="context_overflow", limits={"max_episode_tokens": 0}),
    Fault(name="unreadable", kind="parse_error", force="unreadable"),
    Fault(name="unknown name", kind="unknown_tool", force="unknown", tasks=("filenav", "parcels")),
    Fault(name="loop", kind="loop", force="loop", tasks=("filenav", "parcels", "units")),
    Fault(name="early", kind="early_stop", force="early", items=2, members=16),
    Fault(name="refusal", kind="refusal_or_empty", force="refusal"),
    Fault(name="made-up id", kind="hallucinated_ref", force="made_up", tasks=("filenav", "parcels")),
    Fault(name="wrong write", kind="unsafe_write", force="wrong_write", tasks=("parcels",), items=2, members=16),
    Fault(name="skipped", kind="missing_step", force="skipped", tasks=("parcels",), items=2, members=16),
    Fault(name="ignored", kind="ignored_output", force="ignored", items=2, members=16),
    Fault(
        name="twin",
        kind="wrong_tool",
        force="twin",
        twin=TWIN,
        tasks=("filenav", "parcels", "shopdb"),
        items=2,
        members=16,
    ),
)
