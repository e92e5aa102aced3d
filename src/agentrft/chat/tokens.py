"""Text ↔ ids with the one rule that keeps role boundaries unforgeable: text never becomes a control token.

A control token (`<|im_start|>`, `[INST]`, `<tool_call>` …) is written only by a `Mark`, which only a chat format makes.
Everything else (message content, tool output, tool descriptions, template wording) is text and is encoded with control
tokens switched off, so that `<|im_start|>` inside a tool result becomes ordinary pieces such as `<`, `|`, `im`.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import tokenizers

from agentrft.errors import UserError

_DATE = datetime.date(2024, 7, 26)  # what Llama 3's own template falls back to


@dataclass(frozen=True, slots=True)
class Mark:
    """A control token, by its text."""

    token: str


Piece = str | Mark
"""Rendered conversation before encoding; neighbouring strings are encoded together."""


class Tokenizer(Protocol):
    """What a chat format needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Ids of untrusted text; never contains a control token's id, adds no begin or end token."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, control tokens shown; bytes that are not UTF-8 become U+FFFD."""
        ...

    def has(self, token: str) -> bool:
        """Whether `token` is a control token of this tokenizer."""
        ...

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """The texts of all control tokens."""
        ...

    def special(self, token: str) -> int:
        """The id of a control token; raises UserError when there is none of that name."""
        ...

    def split(self, text: str) -> list[Piece]:
        """Trusted template text as pieces: control tokens written in it become marks."""
        ...

    def encode_trusted(self, text: str) -> list[int]:
        """Ids of trusted template text, control tokens on; only for comparing with what the model's authors train."""
        ...

    @property
    def template(self) -> str:
        """The chat template that the model ships, as Jinja source; empty when it ships none."""
        ...

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], *, opened: bool) -> str:
        """The shipped template's text; `opened` adds the opening of the next reply.

        Templates that print today's date get a fixed one, so that a job resumed tomorrow sees the same prompt.
        Raises whatever the template raises.
        """
        ...


def encode_pieces(tokenizer: Tokenizer, pieces: Iterable[Piece]) -> list[int]:
    """Ids of `pieces`: marks as control tokens, each run of text between two marks encoded as one string."""
    ids: list[int] = []
    text: list[str] = []

    def flush() -> None:
        if text:
            ids.extend(tokenizer.encode("".join(text)))
            text.clear()

    for piece in pieces:
        if isinstance(piece, str):
            text.append(piece)
        else:
            flush()
            ids.append(tokenizer.special(piece.token))
    flush()
    return ids


def mend_text(text: str) -> str:
    """`text` with lone surrogates (from JSON escapes such as \\ud800) replaced by U+FFFD, so that it can be encoded."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class FastTokenizer:
    """A `Tokenizer` over a `tokenizers.Tokenizer` or a transformers fast tokenizer, which is left as it was.

    `encode_special_tokens` alone is not enough: it spares only added tokens flagged special, and families such as
    Qwen add `<tool_call>` unflagged. We therefore encode with a copy in which every control token is flagged.
    """

    def __init__(self, source: Any) -> None:
        backend = source if isinstance(source, tokenizers.Tokenizer) else getattr(source, "backend_tokenizer", None)
        if not isinstance(backend, tokenizers.Tokenizer):
            raise UserError(
                f"cannot use this tokenizer: got {type(source).__name__}, expected a fast tokenizer (one that carries "
                "a tokenizer.json); next step: convert it with transformers' `AutoTokenizer.from_pretrained(...)."
                "save_pretrained(...)` and give that folder as the model",
                param="model",
                code="tokenizer_unsupported",
            )
        self._source: Any = source
        self._backend = backend
        self._marks = {
            added.content: id_ for id_, added in backend.get_added_tokens_decoder().items() if _is_mark(added)
        }
        self._mark_ids = frozenset(self._marks.values())
        longest_first = sorted(self._marks, key=len, reverse=True)
        self._mark_pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._plain = _without_marks(backend, frozenset(self._marks))

    @property
    def template(self) -> str:
        found = getattr(self._source, "chat_template", None)
        if isinstance(found, Mapping):
            found = found.get("tool_use") or found.get("default")
        return found or ""

    def encode(self, text: str) -> list[int]:
        text = mend_text(text)
        ids = self._plain.encode(text, add_special_tokens=False).ids
        if self._mark_ids.isdisjoint(ids):
            return ids
        # Some vocabularies reach a control token through merges, or stand one in for characters they lack: then
        # character by character, and what still comes out as a control token is left out.
        spelt = (id_ for char in text for id_ in self._plain.encode(char, add_special_tokens=False).ids)
        return [id_ for id_ in spelt if id_ not in self._mark_ids]

    def decode(self, ids: Sequence[int]) -> str:
        return self._backend.decode(list(ids), skip_special_tokens=False)

    @property
    def control_tokens(self) -> tuple[str, ...]:
        return tuple(sorted(self._marks))

    def has(self, token: str) -> bool:
        return token in self._marks

    def special(self, token: str) -> int:
        if token not in self._marks:
            some = ", ".join(sorted(self._marks)[:8]) or "none"
            raise UserError(
                f"this tokenizer has no control token {token!r} (it has: {some}); next step: set `agent.format` to the "
                "model's own family, or leave it at `auto`",
                param="agent.format",
                code="format_unsupported",
            )
        return self._marks[token]

    def split(self, text: str) -> list[Piece]:
        parts = self._mark_pattern.split(text) if self._marks else [text]
        return [Mark(part) if part in self._marks else part for part in parts if part]

    def encode_trusted(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], *, opened: bool) -> str:
        return self._source.apply_chat_template(
            list(messages),
            tools=list(tools) or None,
            chat_template=self.template,
            add_generation_prompt=opened,
            tokenize=False,
            date_string=_DATE.strftime("%d %b %Y"),
            strftime_now=_DATE.strftime,
        )


def _is_mark(added: tokenizers.AddedToken) -> bool:
    """Runs of white space and single characters that a family merely added to its vocabulary stay text."""
    return added.special or (len(added.content) > 1 and not added.content.isspace())


def _without_marks(backend: tokenizers.Tokenizer, marks: frozenset[str]) -> tokenizers.Tokenizer:
    """A copy that treats `marks` as text, as if it stood right after a control token."""
    spec = json.loads(backend.to_str())
    spec["truncation"] = spec["padding"] = None
    for added in spec["added_tokens"]:
        added["special"] = added["content"] in marks
    # Text is always encoded behind a mark, where a "first" metaspace would not be put.
    for part in _parts(spec["pre_tokenizer"]):
        if part.get("type") == "Metaspace" and part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "never"
    plain = tokenizers.Tokenizer.from_str(json.dumps(spec))
    plain.encode_special_tokens = True
    return plain


def _parts(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    return [pre_tokenizer, *pre_tokenizer.get("pretokenizers", [])]
