"""The chat template that a model ships, used for what only it knows: the wording around tools, system and results.

Untrusted text never goes through Jinja. The template is rendered with holes (private-use characters) in its place, the
result is cut into control tokens and wording, and only then are the holes filled with text that is encoded with control
tokens off. Replies are never rendered by the template: generated ids stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentrft.chat import calls
from agentrft.chat.tokens import Mark, Piece, Tokenizer
from agentrft.errors import UserError
from agentrft.types import Message, ToolSpec

# The quote inside a hole shows whether the template escapes at this place (`tojson`) or writes the text as it is.
_HOLE = re.compile('\ue000(\\d+)(\\\\?)"\ue001')


class ShippedTemplate:
    """Pieces of conversations as the model's own template writes them; `agentrft.chat.check` decides if it is usable.

    `stop` is the control token that ends a reply.
    """

    def __init__(self, tokenizer: Tokenizer, stop: str) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._after: dict[int, str | None] = {}

    def head(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Piece]:
        """Everything before the first reply, its opening included; raises UserError where the template refuses."""
        texts: list[str] = []
        shown = [{"role": m.role, "content": _hole(texts, m.content or "")} for m in messages]
        schemas = [_with_holes(schema, texts) for schema in calls.chat_style(tools)]
        self._refuse_marks(schemas)
        try:
            rendered = self._tokenizer.render(shown, schemas, opened=True)
        except Exception as error:  # Jinja and template authors raise what they like
            raise _refused(calls.one_line(str(error)), messages) from error
        if not {int(match[1]) for match in _HOLE.finditer(rendered)}.issuperset(range(len(messages))):
            raise _refused("it leaves out a message", messages)
        return self._fill(rendered, texts)

    def after(self, messages: Sequence[Message]) -> list[Piece] | None:
        """What follows the stop token of a reply with results `messages`, or None where the template cannot say."""
        if not messages or any(message.role != "tool" for message in messages):
            return None
        count, outputs = len(messages), [message.content or "" for message in messages]
        if count not in self._after:
            self._after[count] = self._find_after(count)
        rendered = self._after[count]
        return None if rendered is None else self._fill(rendered, outputs)

    def _find_after(self, count: int) -> str | None:
        try:
            rendered = self._tokenizer.render(probe(count), [PROBE_TOOL], opened=True)
        except Exception:  # Llama 3 raises on two calls in one reply; the bundled wording is used for those
            return None
        first = rendered.find("\ue000")
        start = rendered.rfind(self._stop, 0, max(first, 0))
        found = [int(match[1]) for match in _HOLE.finditer(rendered)]
        if start < 0 or found != list(range(count)):
            return None
        return rendered[start + len(self._stop) :]

    def _fill(self, rendered: str, texts: Sequence[str]) -> list[Piece]:
        pieces: list[Piece] = []
        end = 0
        for match in _HOLE.finditer(rendered):
            pieces += self._tokenizer.split(rendered[end : match.start()])
            text = texts[int(match[1])]
            pieces.append(calls.dump(text)[1:-1] if match[2] else text)
            end = match.end()
        return pieces + self._tokenizer.split(rendered[end:])

    def _refuse_marks(self, schemas: Sequence[Mapping[str, Any]]) -> None:
        for schema in schemas:
            for piece in self._tokenizer.split(calls.dump(schema)):
                if isinstance(piece, Mark):
                    raise UserError(
                        f"the schema of tool {schema['function']['name']!r} contains {piece.token!r}, a control token "
                        "of this model; expected it in descriptions at most; next step: rename the argument or value",
                        param="agent.tools",
                        code="invalid_tool",
                    )


def _refused(why: str, messages: Sequence[Message]) -> UserError:
    return UserError(
        f"the model's chat template refuses this conversation: {why}; got roles {[m.role for m in messages]}; next "
        "step: mend the row's `messages`",
        param="data",
        code="template_refused",
    )


PROBE_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look somewhere.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
PROBE_QUESTION = "Where is it?"


def probe(count: int) -> list[dict[str, Any]]:
    """A question, a reply with `count` calls and their results, in chat-completions shape, holes for the results."""
    ids = [call_id(k) for k in range(count)]
    made = [
        {"id": id_, "type": "function", "function": {"name": "look", "arguments": {"place": "here"}}} for id_ in ids
    ]
    texts: list[str] = []
    return [
        {"role": "user", "content": PROBE_QUESTION},
        {"role": "assistant", "content": "", "tool_calls": made},
        *({"role": "tool", "name": "look", "tool_call_id": id_, "content": _hole(texts, "")} for id_ in ids),
    ]


def call_id(position: int) -> str:
    """Nine letters and digits, as Mistral's templates demand, from a call's position in its reply."""
    return f"call{position:05d}"


def _hole(texts: list[str], text: str) -> str:
    texts.append(text)
    return f'\ue000{len(texts) - 1}"\ue001'


def _with_holes(schema: Any, texts: list[str]) -> Any:
    """A tool schema whose descriptions are holes."""
    if isinstance(schema, Mapping):
        return {
            key: _hole(texts, value) if key == "description" and isinstance(value, str) else _with_holes(value, texts)
            for key, value in schema.items()
        }
    if isinstance(schema, list | tuple):
        return [_with_holes(value, texts) for value in schema]
    return schema
