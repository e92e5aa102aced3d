"""What a reply has to look like, as a grammar for constrained decoding: calls in the format's own writing, and answers.

A grammar writes exactly what the format's `reply` writes for a demonstration, so that a held reply is one that the
model was trained on, and `parse` reads it back. Where the format marks calls with control tokens the grammar uses
their ids; text can never stand for them.

In the line format each argument is held to its own schema: where that says more than a kind or an enum it is written as
JSON, strings in quotes. What stands beside `properties` (`minProperties`, `dependentRequired`) has no place there, and
arguments that only a `$ref` or `allOf` describes are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agentrft.chat import AnyFormat, calls
from agentrft.errors import UserError
from agentrft.protocols import Constraint
from agentrft.runtime.serving.conversation import Conversation
from agentrft.types import ToolSpec

_JSON = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As `calls.dump` writes."""
_ANSWER_JSON = {"whitespace_pattern": r" ?|\n {0,24}"}
"""As models write for readers: on one line, or indented."""
_TEXT = r"/(.|\n)*/"
_TEXT_OF = {"hermes": r"/([^<\s](.|\n)*)?/", "llama3": r"/([^{\s](.|\n)*)?/"}
"""Text that does not begin as a call would, where a reply's start is all that tells them apart."""
_WORD = r"/[^\s\"\x00-\x1f\x7f][^\s\x00-\x1f\x7f]*/"
_LINE_REST = r"/[^\s\"\x00-\x1f\x7f][^\x00-\x1f\x7f]*/"
_BOUNDS = frozenset(
    {
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "pattern", "format", "$ref", "allOf"),
    }
)
_COMBINING = frozenset({"additionalProperties", "patternProperties", "$ref", "allOf", "anyOf", "oneOf"})
"""Where more properties may come from."""
_BY_KIND = {
    "integer": "/-?[0-9]{1,18}/",
    "number": r"/-?[0-9]{1,18}(\.[0-9]{1,18})?/",
    "boolean": '("true" | "false")',
    "null": '"null"',
}


def constraint_of(fmt: AnyFormat, conversation: Conversation) -> Constraint | None:
    """What to hold the reply to; None where any reply will do."""
    may_call = bool(conversation.callable)
    if conversation.schema is None and not conversation.must_call:
        if may_call and not conversation.strict:
            return None
        if not may_call and not conversation.tools:
            return None
    grammar = _Grammar(fmt)
    options = []
    if not conversation.must_call:
        options.append(grammar.answer(conversation.schema, beside_calls=bool(conversation.tools)))
    if may_call:
        options.append(grammar.calls(conversation.callable, one=conversation.one_call))
    return Constraint(kind="lark", source=grammar.text(options))


class _Grammar:
    """Rules in llguidance's Lark syntax, for one format."""

    def __init__(self, fmt: AnyFormat) -> None:
        self._fmt = fmt
        self._rules: list[str] = []

    def text(self, options: Sequence[str]) -> str:
        """The whole grammar."""
        return "\n".join([f"start: {' | '.join(options)}", *self._rules]) + "\n"

    def _rule(self, name: str, body: str) -> str:
        self._rules.append(f"{name}: {body}")
        return name

    def _json(self, name: str, schema: Any, options: Mapping[str, Any]) -> str:
        """A rule for JSON under a schema, which keeps its own `$defs`."""
        whole = dict(schema) if isinstance(schema, Mapping) else {} if schema else {"not": {}}
        return self._rule(name, f"%json {json.dumps({**whole, 'x-guidance': dict(options)})}")

    # ---- answers

    def answer(self, schema: Any, *, beside_calls: bool) -> str:
        if schema is None:
            body = self._rule("text", self._answer_text(beside_calls))
        else:
            body = self._json("json_answer", schema, _ANSWER_JSON)
        if self._fmt.name == "line":
            return self._rule("answer", f'"Answer: " {body}')
        if self._fmt.name == "hermes" and self._has("<think>", "</think>"):
            self._rules.append(f"thought: {self._mark('<think>')} {_TEXT} {self._mark('</think>')} /\\s{{0,2}}/")
            return self._rule("answer", f"thought? {body}")
        return self._rule("answer", body)

    def _answer_text(self, beside_calls: bool) -> str:
        marked = self._fmt.name == "hermes" and self._has("<tool_call>")
        return _TEXT if marked or not beside_calls else _TEXT_OF.get(self._fmt.name, _TEXT)

    # ---- calls

    def calls(self, tools: Sequence[ToolSpec], *, one: bool) -> str:
        return getattr(self, f"_{self._fmt.name}_calls")(tools, one)

    def _hermes_calls(self, tools: Sequence[ToolSpec], one: bool) -> str:
        bodies = self._bodies(tools, "arguments")
        open_, close = (self._mark(token) for token in ("<tool_call>", "</tool_call>"))
        call = self._rule("call", f'{open_} "\\n" ({bodies}) "\\n" {close}')
        return self._rule("calls", call if one else f'{call} ("\\n" {call})*')

    def _llama3_calls(self, tools: Sequence[ToolSpec], one: bool) -> str:
        body = self._rule("call", self._bodies(tools, "parameters"))
        return self._rule("calls", body if one else f'{body} ("; " {body})*')

    def _mistral_calls(self, tools: Sequence[ToolSpec], one: bool) -> str:
        id_ = '", \\"id\\": \\"" /[a-zA-Z0-9]{9}/ "\\""'
        body = self._rule("call", self._bodies(tools, "arguments", more=id_))
        several = body if one else f'{body} (", " {body})*'
        return self._rule("calls", f'{self._mark("[TOOL_CALLS]")} " [" {several} "]"')

    def _bodies(self, tools: Sequence[ToolSpec], key: str, more: str = "") -> str:
        names = []
        for k, tool in enumerate(tools):
            head = _literal(f'{{"name": {calls.dump(tool.name)}, "{key}": ')
            arguments = self._json(f"arguments_{k}", _closed(tool.parameters), _JSON)
            names.append(self._rule(f"call_{k}", f'{head} {arguments} {more} "}}"'))
        return " | ".join(names)

    def _line_calls(self, tools: Sequence[ToolSpec], one: bool) -> str:
        del one  # the format has no place for two
        return self._rule("calls", " | ".join(self._line(k, tool) for k, tool in enumerate(tools)))

    def _line(self, k: int, tool: ToolSpec) -> str:
        schemas, needed = calls.properties(tool), calls.required(tool)
        # By position: whatever stands before a required argument has to be said too.
        fixed = max((place for place, name in enumerate(schemas, 1) if name in needed), default=0)
        body, closing = _literal(tool.name), ""
        for place, name in enumerate(schemas, 1):
            slot = self._slot(f"slot_{k}_{place}", name, tool, is_last=place == len(schemas))
            body += f' " " {slot}' if place <= fixed else f' (" " {slot}'
            closing += "" if place <= fixed else ")?"
        return self._rule(f"line_{k}", body + closing)

    def _slot(self, rule: str, argument: str, tool: ToolSpec, *, is_last: bool) -> str:
        schema = calls.properties(tool)[argument]
        if beyond := [key for key in ("$ref", "allOf") if key in schema]:
            raise UserError(
                f"the line format cannot hold argument {argument!r} of {tool.name!r} to its schema: got {beyond[0]}, "
                "expected a `type` beside it; write the schema out, or use a model of another format",
                param="tools",
                code="constraint_unsupported",
            )
        values = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
        if values:
            return self._rule(rule, " | ".join(_literal(_word(value)) for value in values))
        own = {**{key: tool.parameters[key] for key in ("$defs", "definitions") if key in tool.parameters}, **schema}
        if _is_bounded(schema):
            return self._json(rule, own, _JSON)
        options = []
        for kind in calls.kinds(schema):
            if kind == "string":
                options.append(_LINE_REST if is_last else _WORD)
            elif kind in ("array", "object"):
                options.append(self._json(f"{rule}_{kind}", {**own, "type": kind}, _JSON))
            else:
                options.append(_BY_KIND[kind])
        return self._rule(rule, " | ".join(options))

    def _has(self, *tokens: str) -> bool:
        return all(self._fmt.tokenizer.has(token) for token in tokens)

    def _mark(self, token: str) -> str:
        """A control token by its id, or its text where the tokenizer has none of that name."""
        return f"<[{self._fmt.tokenizer.special(token)}]>" if self._has(token) else _literal(token)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _word(value: Any) -> str:
    """An enum's value as the line format writes it."""
    plain = isinstance(value, str) and value and not any(char.isspace() or char == '"' for char in value)
    return value if plain and value[0] not in "[{" else calls.dump(value)


def _is_bounded(schema: Mapping[str, Any]) -> bool:
    """Whether a schema, or an alternative in it, asks for more than a kind."""
    inner = [one for key in ("anyOf", "oneOf") for one in schema.get(key, ()) if isinstance(one, Mapping)]
    return not _BOUNDS.isdisjoint(schema) or any(_is_bounded(one) or "enum" in one or "const" in one for one in inner)


def _closed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A tool's arguments and no others: what a schema leaves open, a tool would refuse."""
    whole = {"type": "object", **schema}
    is_plain = _COMBINING.isdisjoint(schema)
    return {**whole, "additionalProperties": False} if is_plain else whole
