"""`agentrft tools JOB`: what the agent may call, and whether it answers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from agentrft.cli.console import err, out, print_error, safe, warn
from agentrft.cli.jobref import read_job
from agentrft.cli.replay import replay

if TYPE_CHECKING:
    from agentrft.jobs.spec import JobSpec
    from agentrft.tools import JobTools
    from agentrft.types import Item, ToolResult, ToolSpec


class _ShowByDefault(TyperGroup):
    """`agentrft tools JOB` is `agentrft tools show JOB`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_ShowByDefault, no_args_is_help=True, help="A job's tools: what they are, whether they answer.")
app.command("replay")(replay)


@app.command("show")
def show(
    job: str = typer.Argument(help="A job file, or the id of a stored job.", metavar="JOB"),
    call: str | None = typer.Option(None, help="Call this tool, as an episode would.", metavar="TOOL"),
    arguments: str = typer.Option("{}", help="JSON for --call."),
    item: str | None = typer.Option(None, help="Id of the item whose episode it is; the first by default."),
    as_json: bool = typer.Option(False, "--json", help="Print everything as JSON on stdout."),
) -> None:
    """Every tool with its schema and guardrails, opened for one item; exit code 1 when one does not start."""
    from agentrft.store import open_store

    store = open_store()
    try:
        spec, base_dir = read_job(store, job)
    finally:
        store.close()
    chosen = _item(spec, base_dir, item)
    with err().status("opening the tools …"):
        report = asyncio.run(_probe(spec, base_dir, chosen, call, arguments))
    if as_json:
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(report)
    if report["fault"]:
        raise typer.Exit(1)


def _item(spec: JobSpec, base_dir: Path, wanted: str | None) -> Item | None:
    from agentrft.errors import UserError
    from agentrft.jobs.rows import items_of

    splits = [split for split in ("train", "validation", "test") if getattr(spec.data, split)]
    for split in splits:
        items = items_of(spec, base_dir, split)
        found = next((one for one in items if wanted is None or one.id == wanted), None)
        if found is not None:
            return found
    if wanted is not None:
        raise UserError(f"no split of the job has an item {wanted!r}; expected the id of a row", param="item")
    return None


async def _probe(spec: JobSpec, base_dir: Path, item: Item | None, call: str | None, arguments: str) -> dict[str, Any]:
    from agentrft.errors import ToolFault
    from agentrft.jobs.check_tools import BoundTools, check_guardrails
    from agentrft.jobs.tools import open_tools
    from agentrft.types import Item as Row
    from agentrft.types import ToolCall

    tools = await open_tools(spec, base_dir)
    row = item or Row(id="probe", messages=())
    report: dict[str, Any] = {"item": row.id, "tools": [], "opened_s": None, "fault": None, "result": None}
    report["bound"] = len(tools.names)
    report["warnings"] = check_guardrails(spec.guardrails, BoundTools(names=tools.names, specs=tools.described))
    described = {tool.name: tool for tool in (*tools.described, *row.tools)}
    shown = [name for name in tools.names if call in (None, name)]
    report["tools"] = [_described(name, described.get(name), tools) for name in shown]
    try:
        started = time.perf_counter()
        session = await tools.open(row, "trace_probe")
        report["opened_s"] = time.perf_counter() - started
        try:
            if call is not None:
                (result,) = await session.run([ToolCall(id="call_0", name=call, arguments=arguments)])
                report["result"] = _result(result)
        finally:
            await session.close()
    except ToolFault as fault:
        report["fault"] = str(fault)
    finally:
        await tools.close()
    return report


def _described(name: str, spec: ToolSpec | None, tools: JobTools) -> dict[str, Any]:
    from agentrft.tools.guardrails.access import is_allowed, rules_for

    guardrails, hints = tools.policy.guardrails, tools.hints(name)
    rules = rules_for(name, guardrails).model_dump(exclude_defaults=True)
    return {
        "name": name,
        "description": spec.description if spec else None,
        "parameters": dict(spec.parameters) if spec else None,
        "rules": rules,
        "is_allowed": is_allowed(name, guardrails) or not tools.policy.enforces,
        "writes": rules.get("effect", "write" if hints.writes else "read") == "write",
        "says_it_reads": hints.says_it_reads,
    }


def _result(result: ToolResult) -> dict[str, Any]:
    return dataclasses.asdict(result)


def _print(report: Mapping[str, Any]) -> None:
    for tool in report["tools"]:
        line = Text(tool["name"], style="bold")
        line.append(f"({', '.join(_parameters(tool['parameters']))})", style="")
        if not tool["is_allowed"]:
            line.append("  denied", style="red")
        out().print(line, soft_wrap=True)
        out().print(safe(f"  {tool['description'] or 'described by the rows only'}", "dim"), soft_wrap=True)
        if tool["writes"]:
            advice = "; it says that it only reads: confirm with `effect: read`" if tool["says_it_reads"] else ""
            out().print(safe(f"  counts as a write{advice}", "yellow"), soft_wrap=True)
        if tool["rules"]:
            out().print(safe(f"  guardrails: {json.dumps(tool['rules'], ensure_ascii=False)}", "cyan"), soft_wrap=True)
    for warning in report["warnings"]:
        warn(warning)
    if report["result"] is not None:
        _print_result(report["result"])
    if report["fault"]:
        print_error(report["fault"])
    else:
        said = f"✓ {report['bound']} tools opened for item {report['item']} in {report['opened_s'] * 1000:.0f} ms"
        out().print(safe(said, "green"))


def _print_result(result: Mapping[str, Any]) -> None:
    out().print()
    out().print(safe(result["output"], "yellow" if result["is_error"] else ""), soft_wrap=True)
    steps = " → ".join(f"{step['name']} {step['bytes_in']}→{step['bytes_out']}" for step in result["shaping"])
    tried = f"{result['tries']} {'try' if result['tries'] == 1 else 'tries'}"
    facts = f"{result['wall_s'] * 1000:.0f} ms, {result['bytes_in']} bytes, {tried}"
    out().print(safe(f"  {facts}{f', {steps}' if steps else ''}", "dim"))
    for one in result["interventions"]:
        out().print(safe(f"  {one['rule']}: {one['message']}", "cyan"), soft_wrap=True)


def _parameters(schema: Mapping[str, Any] | None) -> list[str]:
    if not schema:
        return ["…"]
    required = schema.get("required", ())
    return [
        f"{name}{'' if name in required else '?'}: {part.get('type', 'any') if isinstance(part, dict) else 'any'}"
        for name, part in schema.get("properties", {}).items()
    ]
