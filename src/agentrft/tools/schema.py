"""Tool schemas: from a Python signature and docstring to a `ToolSpec`, and from wrong arguments to words about them.

Understands str, int, float, bool, list, dict, Literal, Optional and unions of these. It does not read dataclasses,
TypedDicts or enums: a tool with such a parameter is refused, because small models fill nested objects badly.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError

from agentrft.errors import UserError
from agentrft.types import ToolSpec

_JSON_TYPES: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
    type(None): "null",
}
_SUPPORTED = "str, int, float, bool, list, dict, Literal, Optional or a union of these"
_EXAMPLES: dict[str, Any] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}
_MAX_RECEIVED_CHARS = 24
_MAX_ERRORS_SHOWN = 4


def spec_from_function(function: Callable[..., Any], *, is_method: bool = False, param: str = "tools") -> ToolSpec:
    """The function as a tool: its name, the docstring's first paragraph, a JSON Schema of its parameters.

    `Args:` lines of a Google-style docstring describe the parameters. `is_method` leaves out the first parameter.
    Raises UserError (with `param`) for a parameter without an annotation, or with one that JSON cannot express.
    """
    name = function.__name__
    parameters = list(inspect.signature(function).parameters.values())[1 if is_method else 0 :]
    hints = _type_hints(function, name, param)
    description, parameter_docs = _read_docstring(inspect.getdoc(function) or "")
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise _unusable(name, parameter.name, f"is {parameter.kind.description}", "name every argument", param)
        if parameter.annotation is parameter.empty:
            raise _unusable(name, parameter.name, "has no type annotation", f"annotate it with {_SUPPORTED}", param)
        schema = _schema_of(hints[parameter.name])
        if schema is None:
            got = f"is annotated {parameter.annotation!r}"
            raise _unusable(name, parameter.name, got, f"use {_SUPPORTED}", param)
        if parameter.name in parameter_docs:
            schema["description"] = parameter_docs[parameter.name]
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        elif parameter.default is not None:
            schema["default"] = parameter.default
        properties[parameter.name] = schema
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return ToolSpec(name=name, description=description, parameters=schema)


def _unusable(tool: str, parameter: str, got: str, next_step: str, param: str) -> UserError:
    message = f"tool {tool}: parameter {parameter} {got}, so there is no schema to show the model; {next_step}"
    return UserError(message, param=param, code="invalid_tool")


def _type_hints(function: Callable[..., Any], name: str, param: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        message = f"tool {name}: its annotations cannot be read ({error}); import the names they use in the same file"
        raise UserError(message, param=param, code="invalid_tool") from error


def _schema_of(annotation: Any) -> dict[str, Any] | None:
    """JSON Schema of an annotation, or None when there is none."""
    if annotation in _JSON_TYPES:
        return {"type": _JSON_TYPES[annotation]}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _schema_of(arguments[0])
    if origin is Literal:
        kinds = {_JSON_TYPES.get(type(value)) for value in arguments}
        kind = kinds.pop() if len(kinds) == 1 else None
        return {"type": kind, "enum": list(arguments)} if kind else {"enum": list(arguments)}
    if origin is list:
        items = _schema_of(arguments[0])
        return None if items is None else {"type": "array", "items": items}
    if origin is dict and arguments[0] is str:
        values = _schema_of(arguments[1])
        return None if values is None else {"type": "object", "additionalProperties": values}
    if origin in (Union, types.UnionType):
        return _union([_schema_of(argument) for argument in arguments])
    return None


def _union(options: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    known = [option for option in options if option is not None]
    if len(known) < len(options):
        return None
    if all(set(option) == {"type"} for option in known):
        return {"type": [option["type"] for option in known]}
    return {"anyOf": known}


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """First paragraph on one line, and what the `Args:` section says of each parameter."""
    paragraphs = text.strip().split("\n\n")
    docs: dict[str, str] = {}
    lines = text.splitlines()
    start = next((n for n, line in enumerate(lines) if line.strip() in ("Args:", "Arguments:")), len(lines))
    indent: int | None = None
    name = ""
    for line in lines[start + 1 :]:
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        indent = depth if indent is None else indent
        if depth < indent or depth == 0:
            break
        if depth == indent and ":" in line:
            name, _, description = line.strip().partition(":")
            name = name.split("(")[0].strip().lstrip("*")
            docs[name] = description.strip()
        elif name:
            docs[name] = f"{docs[name]} {line.strip()}".strip()
    return " ".join(paragraphs[0].split()), docs


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentError:
    """One thing wrong with the arguments of a call."""

    path: str
    """Dotted, list positions in brackets: `filter.days[2]`; empty for the arguments as a whole."""
    expected: str
    received: str
    """JSON, cut short; `nothing` when a required argument is missing."""

    def __str__(self) -> str:
        if self.received == "nothing":
            return f"missing {self.path} ({self.expected})"
        return f"{self.path or 'arguments'}: expected {self.expected}, got {self.received}"


class ArgumentCheck:
    """Checks arguments against one tool's schema; built once per tool, used for every call."""

    def __init__(self, spec: ToolSpec, *, param: str = "tools") -> None:
        """Raises UserError when the schema itself is not valid JSON Schema (draft 2020-12)."""
        schema = dict(spec.parameters)
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            message = f"tool {spec.name}: its parameters are not a valid JSON Schema: {error.message}"
            raise UserError(message, param=param, code="invalid_tool") from error
        self._validator = Draft202012Validator(schema)
        value = _example_of(schema)
        self.example = json.dumps(value, ensure_ascii=False) if self._validator.is_valid(value) else None
        """A valid arguments object as JSON, or None when none could be made from the schema."""

    def errors(self, arguments: Any) -> tuple[ArgumentError, ...]:
        """Everything wrong with `arguments`, in order of path; empty when they fit."""
        found = (made for error in self._validator.iter_errors(arguments) for made in _read_error(error))
        return tuple(sorted(dict.fromkeys(found), key=lambda error: error.path))

    def explain(self, errors: Sequence[ArgumentError]) -> str:
        """One line for the model: each error, then a valid example."""
        parts = [str(error) for error in errors[:_MAX_ERRORS_SHOWN]]
        if len(errors) > _MAX_ERRORS_SHOWN:
            parts.append(f"{len(errors) - _MAX_ERRORS_SHOWN} more")
        if self.example is not None:
            parts.append(f"example {self.example}")
        return "; ".join(parts)


def _read_error(error: ValidationError) -> list[ArgumentError]:
    path = _path(error.absolute_path)
    schema: Mapping[str, Any] = error.schema if isinstance(error.schema, Mapping) else {}
    properties = schema.get("properties", {})
    instance: Any = error.instance
    if error.validator == "required":
        # jsonschema names one missing argument an error, inside its message only; `errors` drops the repetition.
        return [
            ArgumentError(path=_join(path, name), expected=_expected(properties.get(name, {})), received="nothing")
            for name in schema["required"]
            if name not in instance
        ]
    if error.validator == "additionalProperties" and schema["additionalProperties"] is False:
        known = ", ".join(properties) or "no arguments"
        extra = [name for name in instance if name not in properties]
        return [ArgumentError(path=_join(path, name), expected=known, received="an unknown name") for name in extra]
    if error.validator in ("type", "enum", "const", "anyOf", "oneOf"):
        expected = _expected(schema)
    else:
        expected = f"{error.validator} {json.dumps(error.validator_value)}"
    return [ArgumentError(path=path, expected=expected, received=_short(instance))]


def _path(parts: Any) -> str:
    text = ""
    for part in parts:
        text = f"{text}[{part}]" if isinstance(part, int) else _join(text, part)
    return text


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else str(name)


def _expected(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_expected(option) for option in schema[key])
    kind = schema.get("type", "a value")
    return kind if isinstance(kind, str) else " or ".join(kind)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_RECEIVED_CHARS else text[:_MAX_RECEIVED_CHARS] + "…"


def _example_of(schema: Mapping[str, Any]) -> Any:
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    if "default" in schema:
        return schema["default"]
    if schema.get("anyOf"):
        return _example_of(schema["anyOf"][0])
    kind = schema.get("type", "string")
    kind = kind if isinstance(kind, str) else kind[0]
    if kind == "object" and "properties" in schema:
        names = schema.get("required") or list(schema["properties"])
        return {name: _example_of(schema["properties"].get(name, {})) for name in names}
    return _EXAMPLES.get(kind)
