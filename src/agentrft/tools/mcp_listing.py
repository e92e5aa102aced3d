"""From a server's list of tools to those that a job offers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NoReturn

from mcp_types import Tool

from agentrft.errors import UserError
from agentrft.tools.mcp_binding import McpBinding
from agentrft.tools.schema import ArgumentCheck
from agentrft.types import ToolSpec

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SHOWN_NAMES = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTool:
    """One of a server's tools, as a job uses it."""

    name: str
    """The server's own, without the prefix."""
    spec: ToolSpec
    annotations: Mapping[str, bool]
    """What it says about itself, in the protocol's words (`readOnlyHint`); it may be wrong or lie."""
    key_argument: str | None = None
    """Gets the trace id."""
    key_meta: str | None = None
    """Key of `_meta` that gets the trace id."""

    def to_send(self, arguments: Mapping[str, Any], trace_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arguments and the `_meta` of a call."""
        sent = dict(arguments) if self.key_argument is None else {**arguments, self.key_argument: trace_id}
        return sent, {} if self.key_meta is None else {self.key_meta: trace_id}


def read_listing(listing: Sequence[Tool], binding: McpBinding, param: str) -> tuple[ListedTool, ...]:
    """The allowed tools in the server's order.

    Raises UserError (`param`) when a pattern fits none, when two have one name, and for a tool whose name no chat
    format can write or whose schema cannot be checked.
    """
    names = [tool.name for tool in listing]
    patterns = ("*",) if binding.allowed_tools is None else binding.allowed_tools
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            wanted = "no tools" if binding.allowed_tools is None else f"no tool {pattern!r}"
            shown = ", ".join(names[:_SHOWN_NAMES]) + (", …" if len(names) > _SHOWN_NAMES else "")
            message = f"MCP server {binding.server_label} has {wanted}; it has: {shown or 'none'}; mend `allowed_tools`"
            raise UserError(message, param=param, code="tool_not_found")
    allowed = [tool for tool in listing if any(fnmatchcase(tool.name, pattern) for pattern in patterns)]
    for tool in allowed:
        if names.count(tool.name) > 1:
            _refuse(tool, binding, "is listed twice", "leave it out of `allowed_tools`, or mend the server", param)
    return tuple(_read(tool, binding, param) for tool in allowed)


def _read(tool: Tool, binding: McpBinding, param: str) -> ListedTool:
    name = binding.prefix + tool.name
    if not _NAME.fullmatch(name):
        got = f"would be offered as {name!r}, expected 1 to 64 letters, digits, '_', '.' or '-'"
        _refuse(tool, binding, got, "shorten `prefix`, or leave the tool out of `allowed_tools`", param)
    parameters = dict(tool.input_schema)
    if parameters.get("type", "object") != "object" or not isinstance(parameters.get("properties", {}), Mapping):
        _refuse(tool, binding, "takes no object of arguments", "leave it out of `allowed_tools`", param)
    key, is_argument = binding.state_key, False
    if key is not None and key in parameters.get("properties", {}):
        parameters, is_argument = _without(parameters, key), True
    spec = ToolSpec(name=name, description=tool.description or tool.title or "", parameters=parameters)
    try:
        ArgumentCheck(spec, param=param)
    except UserError as error:
        # Only the server's author can mend it, so the way on is to do without.
        message = f"MCP server {binding.server_label}: {error.message}; leave it out of `allowed_tools`"
        raise UserError(message, param=param, code=error.code) from error
    dumped = {} if tool.annotations is None else tool.annotations.model_dump(by_alias=True, exclude_none=True)
    return ListedTool(
        name=tool.name,
        spec=spec,
        annotations={hint: value for hint, value in dumped.items() if isinstance(value, bool)},
        key_argument=key if is_argument else None,
        key_meta=None if is_argument else key,
    )


def _without(parameters: Mapping[str, Any], argument: str) -> dict[str, Any]:
    properties = {name: schema for name, schema in parameters["properties"].items() if name != argument}
    kept = {**parameters, "properties": properties}
    if "required" in parameters:
        kept["required"] = [name for name in parameters["required"] if name != argument]
    return kept


def _refuse(tool: Tool, binding: McpBinding, got: str, next_step: str, param: str) -> NoReturn:
    message = f"MCP server {binding.server_label}: tool {tool.name!r} {got}; {next_step}"
    raise UserError(message, param=param, code="invalid_tool")
