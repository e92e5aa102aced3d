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
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

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


def spec_from_function(
    function: Callable[..., Any], *, name: str | None = None, is_method: bool = False, param: str = "tools"
) -> ToolSpec:
    """The function as a tool: its name, the docstring's first paragraph, a JSON Schema of its parameters.

    `Args:` lines of a Google-style docstring describe the parameters. `name` is the function's own unless given,
    `is_method` leaves out the first parameter. Raises UserError (with `param`) for a signature that cannot be read, and
    for a parameter without an annotation, or with an annotation or a default that JSON cannot express.
    """
    name = name or function.__name__
    parameters = _parameters(function, name, param)[1 if is_method else 0 :]
    hints = _type_hints(function, name, param)
    description, parameter_docs = _read_docstring(inspect.getdoc(function) or "")
    properties: dict[str, Any] = {}
    for parameter in parameters:
        # A decorator that sets `__signature__` gives parameters that the function's own hints do not know.
        schema = _parameter_schema(name, parameter, hints.get(parameter.name, parameter.annotation), param)
        if parameter.name in parameter_docs:
            schema["description"] = parameter_docs[parameter.name]
        if parameter.default is not parameter.empty and parameter.default is not None:
            schema["default"] = _json_default(name, parameter, param)
        properties[parameter.name] = schema
    required = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return ToolSpec(name=name, description=description, parameters=schema)


def _parameter_schema(tool: str, parameter: inspect.Parameter, annotation: Any, param: str) -> dict[str, Any]:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise _unusable(tool, parameter.name, f"is {parameter.kind.description}", "name every argument", param)
    if annotation is parameter.empty:
        raise _unusable(tool, parameter.name, "has no type annotation", f"annotate it with {_SUPPORTED}", param)
    if isinstance(annotation, str):
        got = f"is annotated with the string {annotation!r}, which its decorator left unresolved"
        raise _unusable(tool, parameter.name, got, "put the type itself into the decorator's `__signature__`", param)
    schema = _schema_of(annotation)
    if schema is None:
        raise _unusable(tool, parameter.name, f"is annotated {parameter.annotation!r}", f"use {_SUPPORTED}", param)
    return schema


def _json_default(tool: str, parameter: inspect.Parameter, param: str) -> Any:
    try:
        json.dumps(parameter.default, allow_nan=False)
    except (TypeError, ValueError) as error:
        got = f"has the default {parameter.default!r}, which JSON cannot hold"
        raise _unusable(tool, parameter.name, got, "make None the default and fill it in inside", param) from error
    return parameter.default


def _unusable(tool: str, parameter: str, got: str, next_step: str, param: str) -> UserError:
    message = f"tool {tool}: parameter {parameter} {got}, so there is no schema to show the model; {next_step}"
    return UserError(message, param=param, code="invalid_tool")


def _parameters(function: Callable[..., Any], name: str, param: str) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        message = f"tool {name}: its signature cannot be read ({error}); write a Python function that calls it"
        raise UserError(message, param=param, code="invalid_tool") from error


def _type_hints(function: Callable[..., Any], name: str, param: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        message = f"tool {name}: its annotations cannot be read ({error}); import the names they use in the same file"
        raise UserError(message, param=param, code="invalid_tool") from error


def _schema_of(annotation: Any) -> dict[str, Any] | None:
    """JSON Schema of an annotation, or None when there is none."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    bare = annotation if arguments else origin or annotation  # `typing.List` is `list`
    for known, kind in _JSON_TYPES.items():
        if bare is known:
            return {"type": kind}
    if origin is typing.Annotated:
        return _schema_of(arguments[0])
    if origin is Literal:
        kinds = {_JSON_TYPES.get(type(value)) for value in arguments}
        if None in kinds:  # a member of an enum, or bytes
            return None
        values = {"enum": list(arguments)}
        return {"type": kinds.pop(), **values} if len(kinds) == 1 else values
    if origin is list and len(arguments) == 1:
        items = _schema_of(arguments[0])
        return None if items is None else {"type": "array", "items": items}
    if origin is dict and len(arguments) == 2 and arguments[0] is str:
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


def with_integers(value: Any, schema: Mapping[str, Any]) -> Any:
    """`value` with 3.0 made 3 wherever the schema, one of `spec_from_function`, allows an integer but not any number.

    JSON Schema counts 3.0 as an integer, Python code does not.
    """
    options = _options(schema)
    if isinstance(value, float):
        kinds = {kind for option in options for kind in _kinds(option)}
        return int(value) if value.is_integer() and "integer" in kinds and "number" not in kinds else value
    if isinstance(value, list):
        items = {"anyOf": [option.get("items", {}) for option in options if "array" in _kinds(option)]}
        return [with_integers(item, items) for item in value]
    if isinstance(value, dict):
        values = {"anyOf": [option.get("additionalProperties", {}) for option in options if "object" in _kinds(option)]}
        return {name: with_integers(field, values) for name, field in value.items()}
    return value


def _options(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the schema allows, unions taken apart."""
    return [leaf for option in schema["anyOf"] for leaf in _options(option)] if "anyOf" in schema else [schema]


def _kinds(option: Mapping[str, Any]) -> Sequence[str]:
    if "enum" in option:
        return [_JSON_TYPES[type(value)] for value in option["enum"]]
    kinds = option.get("type", tuple(_JSON_TYPES.values()))
    return (kinds,) if isinstance(kinds, str) else kinds


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
        """Raises UserError when the schema itself is not valid JSON Schema (draft 2020-12), patterns and `$ref` too."""
        schema = dict(spec.parameters)
        try:
            Draft202012Validator.check_schema(schema)
            check_references(schema)
        except SchemaError as error:
            message = f"tool {spec.name}: its parameters are not a valid JSON Schema: {error.message}"
            raise UserError(message, param=param, code="invalid_tool") from error
        # Given a registry, jsonschema does not try the network for references.
        self._validator = Draft202012Validator(schema, registry=REGISTRY)
        value = _example_of(schema)
        self.example = json.dumps(value, ensure_ascii=False) if self._validator.is_valid(value) else None
        """A valid arguments object as JSON, or None when none could be made from the schema."""

    def errors(self, arguments: Any) -> tuple[ArgumentError, ...]:
        """Everything wrong with `arguments`, in order of path; empty when they fit."""
        found = (made for error in self._validator.iter_errors(arguments) for made in _read_error(error))
        return tuple(sorted(dict.fromkeys(found), key=lambda error: error.path))

    def explain(self, errors: Sequence[ArgumentError], *, with_example: bool = True) -> str:
        """One line for the model: each error, then a valid example."""
        parts = [str(error) for error in errors[:_MAX_ERRORS_SHOWN]]
        if len(errors) > _MAX_ERRORS_SHOWN:
            parts.append(f"{len(errors) - _MAX_ERRORS_SHOWN} more")
        if with_example and self.example is not None:
            parts.append(f"example {self.example}")
        return "; ".join(parts)


def check_references(schema: Mapping[str, Any]) -> None:
    """Raises SchemaError for a `$ref` that leads to no schema: validation finds it only when arguments get that far."""
    root = DRAFT202012.create_resource(schema)
    waiting = [(root, REGISTRY.resolver_with_root(root))]
    while waiting:
        part, resolver = waiting.pop()
        waiting += [(inner, resolver.in_subresource(inner)) for inner in part.subresources()]
        for reference in (value for key, value in _keywords(part.contents).items() if key in ("$ref", "$dynamicRef")):
            try:
                target = resolver.lookup(reference).contents
            except (Unresolvable, ValueError) as error:  # ValueError: no URI, or a word where a list has positions
                raise SchemaError(f"$ref {reference} leads nowhere; put what it names under $defs") from error
            Draft202012Validator.check_schema(target)


def _read_error(error: ValidationError) -> list[ArgumentError]:
    path = _path(error.absolute_path)
    schema = _keywords(error.schema)
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


def _keywords(schema: Any) -> Mapping[str, Any]:
    """What the schema asks for; `true` and `false` are schemas too, without a keyword."""
    return schema if isinstance(schema, Mapping) else {}


def _expected(schema: Any) -> str:
    schema = _keywords(schema)
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


def _example_of(schema: Any) -> Any:
    schema = _keywords(schema)
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
