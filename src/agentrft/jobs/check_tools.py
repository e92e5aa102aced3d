"""Static checks of a job's tools: bindings, rows, demonstrations and guardrails speak of the same tools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from agentrft.data.rows import Demonstration
from agentrft.errors import UserError
from agentrft.jobs.spec import JobSpec
from agentrft.jobs.tools import open_tools
from agentrft.net.policy import NetworkPolicy
from agentrft.tools import ArgumentCheck, Guardrails
from agentrft.tools.guardrails.access import is_unmatched, rules_for
from agentrft.tools.guardrails.approval import needed_approval
from agentrft.tools.guardrails.arguments import PROMPT
from agentrft.tools.guardrails.spec import ToolRules
from agentrft.types import Item, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundTools:
    """The tools that a job binds."""

    names: Sequence[str]
    specs: Sequence[ToolSpec]
    """Of those that describe themselves, denied ones too; the rows must describe the others."""
    offered: Sequence[ToolSpec] = ()
    """What rows that list no tools are offered."""


async def bound_tools(spec: JobSpec, base_dir: Path, network: NetworkPolicy | None = None) -> BoundTools:
    """Opens the job's tools to see what they are, and closes them."""
    tools = await open_tools(spec, base_dir, network=network)
    await tools.close()
    return BoundTools(names=tools.names, specs=tools.described, offered=tools.specs)


def check_row_schemas(items: Sequence[Item], tools: BoundTools, source: str) -> None:
    """Raise UserError for a row that describes a tool by a broken schema, or by arguments that it does not take."""
    bound = {tool.name: tool for tool in tools.specs}
    seen: set[str] = set()
    for item in items:
        for tool in item.tools:
            schema = json.dumps([tool.name, tool.parameters], sort_keys=True)
            if schema in seen:
                continue
            seen.add(schema)
            where = f"{source}, line {item.line}"
            try:
                ArgumentCheck(tool, param="agent.tools")
            except UserError as error:
                raise UserError(f"{where}: {error.message}", param=error.param, code=error.code) from None
            if tool.name in bound:
                _check_names(tool, bound[tool.name], where)


def _check_names(described: ToolSpec, bound: ToolSpec, where: str) -> None:
    taken = bound.parameters.get("properties", {})
    unknown = [name for name in described.parameters.get("properties", ()) if name not in taken]
    if unknown and bound.parameters.get("additionalProperties") is False:
        raise UserError(
            f"{where}: the row describes the argument {unknown[0]!r} of the tool {bound.name!r}, which takes "
            f"{', '.join(taken) or 'none'}; every call with it would fail. Rename it in the row or in the tool",
            param="agent.tools",
            code="invalid_tool",
        )


def check_described(items: Sequence[Item], tools: BoundTools, source: str) -> None:
    """Raise UserError for a tool that nothing describes to the model: neither its binding, nor a row."""
    known = {tool.name for tool in tools.specs}
    unknown = [name for name in tools.names if name not in known]
    row = next((item for item in items if not item.tools), None)
    if unknown and row is not None:
        raise UserError(
            f"{source}, line {row.line}: nothing describes the tool {unknown[0]!r} to the model: the row lists no "
            "tools, and the binding has no `parameters`. Expected one of the two; add `description` and `parameters` "
            "(JSON Schema) to the binding, or `tools` to every row",
            param="agent.tools",
            code="invalid_tool",
        )


def check_calls(
    demonstrations: Sequence[Demonstration],
    tools: BoundTools,
    source: Path,
    *,
    param: str = "data.demonstrations",
    what: str = "the demonstration",
) -> None:
    """Raise UserError for a call of a tool that is not bound, or with arguments that do not fit its schema.

    `param` is the field that names the file, `what` a word for its rows.
    """
    own = {tool.name: ArgumentCheck(tool) for tool in tools.specs}
    for demonstration in demonstrations:
        where = f"{source}, line {demonstration.line}: {what} calls"
        checks = own | {tool.name: ArgumentCheck(tool) for tool in demonstration.tools or ()}
        # A job that binds no tools plays none: whoever calls the result brings the tools, as the rows do.
        known = tools.names or [tool.name for tool in demonstration.tools]
        for call in (call for message in demonstration.messages for call in message.tool_calls):
            if call.name not in known:
                raise UserError(f"{where} {_unknown(call.name, known, what)}", param=param, code="unknown_tool")
            check = checks.get(call.name)
            if check is not None and (errors := check.errors(json.loads(call.arguments))):
                raise UserError(
                    f"{where} {call.name!r} with arguments that do not fit: {check.explain(errors)}. "
                    f"Mend {what}: it would teach a call that fails",
                    param=param,
                    code="invalid_demonstration",
                )


def _unknown(name: str, known: Sequence[str], what: str) -> str:
    if not known:
        return (
            f"{name!r}, and neither the row nor the job names any tools; expected those that it may call. Add "
            "`tools` to the row, as OpenAI's format has them, or bind them in `agent.tools`"
        )
    return (
        f"{name!r}, which the job does not bind; expected one of: {', '.join(sorted(known))}. Add it to `agent.tools`, "
        f"or mend {what}"
    )


def check_guardrails(guardrails: Guardrails | None, tools: BoundTools) -> list[str]:
    """Warnings about rules that can never apply; raises UserError for rules that nothing could satisfy."""
    if guardrails is None:
        return []
    for name in tools.names:
        _check_rules(name, rules_for(name, guardrails), guardrails, tools)
    warnings = [
        f"guardrails: {where} names {glob!r}, which matches no tool of the job ({', '.join(tools.names) or 'none'})"
        for where, glob in _globs(guardrails)
        if not any(fnmatchcase(name, glob) for name in tools.names)
    ]
    rejected = [name for name in tools.names if is_unmatched(name, guardrails)]
    if rejected:
        warnings.append(
            f"guardrails: no entry of `tools` matches {', '.join(rejected)}, so calls of it are rejected "
            "(`unmatched: allow` lets them through)"
        )
    return warnings


def _check_rules(name: str, rules: ToolRules, guardrails: Guardrails, tools: BoundTools) -> None:
    param = f"guardrails.tools.{name}"
    if needed_approval(rules, "sandbox") == "ask" and guardrails.approver is None:
        raise UserError(
            f"{param}: approval is `ask`, and nobody is there to be asked while episodes are played; expected "
            "`guardrails.approver`, a function, or `approval: {sandbox: allow, production: ask}`",
            param=f"{param}.approval",
            code="invalid_guardrails",
        )
    asks_for_preview = "dry_run" in (needed_approval(rules, "sandbox"), needed_approval(rules, "production"))
    if asks_for_preview and rules.dry_run_argument is None:
        raise UserError(
            f"{param}: approval is `dry_run`; expected `dry_run_argument`, the boolean argument that makes a preview",
            param=f"{param}.dry_run_argument",
            code="invalid_guardrails",
        )
    described = next((tool for tool in tools.specs if tool.name == name), None)
    if described is None:
        return
    taken = described.parameters.get("properties", {})
    named = [*rules.args, *rules.deny_args, *([rules.dry_run_argument] if rules.dry_run_argument else [])]
    known = ", ".join(taken) or "none"
    for argument in named:
        if argument not in taken:
            raise UserError(
                f"{param}: there is a rule for the argument {argument!r}, but {name} takes {known}; "
                "rename or remove it",
                param=f"{param}.args",
                code="invalid_guardrails",
            )


def _globs(guardrails: Guardrails) -> Iterator[tuple[str, str]]:
    """(where it stands, glob) of everything that is meant to match a tool."""
    for glob in guardrails.deny:
        yield "deny", glob
    for key, rules in guardrails.tools.items():
        yield "tools", key
        for field in ("require_before", "forbid_after"):
            for glob in getattr(rules, field):
                yield f"tools.{key}.{field}", glob
        for argument, rule in rules.args.items():
            for glob in rule.seen_in:
                if glob != PROMPT:
                    yield f"tools.{key}.args.{argument}.seen_in", glob
