"""Constrained decoding: which tokens keep a reply within a JSON Schema or a grammar (by llguidance).

A request's constraint is compiled before the request joins the batch. The mask for a sequence's next token is computed
in a thread of its own while the next pass runs, so that only the rest of the wait, if any, is the batch's.

What llguidance cannot hold to is refused by name, never ignored: a schema is either kept to the letter or an error.
JSON comes with one space after `:` and `,` at most, or a line break with indentation, so that no model can stay in
white space for ever.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
import torch
from torch import Tensor

from agentrft.errors import UserError
from agentrft.protocols import Constraint

_WHITE_SPACE = r" ?|\n {0,24}"
_MAX_SOURCE_BYTES = 256 << 10
_THREADS = 2


class Guide:
    """One sequence's way through its constraint."""

    def __init__(self, matcher: Any, pool: ThreadPoolExecutor, vocabulary: int) -> None:
        self._matcher = matcher
        self._pool = pool
        self._vocabulary = vocabulary
        self._next: Future[Tensor] = pool.submit(self._compute, None)

    def mask(self) -> Tensor:
        """Which tokens may come next: bool [V] on the CPU; waits for it. Raises UserError when the limits are over."""
        return self._next.result()

    def advance(self, token: int) -> None:
        """A token was drawn, and it was not the last."""
        self._next = self._pool.submit(self._compute, token)

    def _compute(self, token: int | None) -> Tensor:
        if token is not None:
            self._matcher.consume_token(token)
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise UserError(
                f"the constraint became too complex to follow: {_first_line(self._matcher.get_error())}; expected a "
                "simpler schema or grammar. Bound strings and lists, and use fewer alternatives",
                param="response_format",
                code="constraint_unsupported",
            )
        allowed = np.zeros(self._vocabulary, dtype=bool)
        known = np.unpackbits(bits, bitorder="little", count=min(8 * len(bits), self._vocabulary))
        allowed[: len(known)] = known
        return torch.from_numpy(allowed)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTokens:
    """What constraints need to know of a model's tokenizer."""

    backend: tokenizers.Tokenizer
    encode: Callable[[str], list[int]]
    """Ids of text, in which control tokens are never read."""
    control_tokens: Collection[str]
    """They never count as their text."""


class Constraints:
    """Compiles constraints for one model's tokenizer."""

    def __init__(self, tokens: TextTokens, vocabulary: int) -> None:
        """`vocabulary` is the model's, which may be larger than the tokenizer's."""
        spec = json.loads(tokens.backend.to_str())
        spec["truncation"] = spec["padding"] = None
        for added in spec["added_tokens"]:
            added["special"] = added["content"] in tokens.control_tokens
        plain = _llguidance().LLTokenizer(json.dumps(spec))
        # llguidance marks control tokens with the byte ff, and loses the token that is nothing else.
        self._bytes = [plain.decode_bytes([id_]) or b"\xff" for id_ in range(plain.vocab_size)]
        self._tokens = tokens
        self._vocabulary = vocabulary
        self._known: dict[frozenset[int], Any] = {}
        """llguidance's tokenizers by stop tokens."""
        self._pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="constraint")

    def start(self, constraint: Constraint, stop_ids: frozenset[int]) -> Guide:
        """The way through `constraint`, from its start; takes up to a second. Raises UserError where it has none."""
        matchers = _llguidance().LLMatcher
        source = constraint.source
        try:
            size = len(source.encode())
        except UnicodeEncodeError:
            raise _refused("it holds half a surrogate pair") from None
        if size > _MAX_SOURCE_BYTES:
            raise _refused(f"it has {size} bytes, expected at most {_MAX_SOURCE_BYTES}")
        if constraint.kind == "json_schema":
            source = _grammar(json.loads(source))
        if stop_ids not in self._known:
            self._known[stop_ids] = self._for_stops(sorted(stop_ids))
        broken, notes = matchers.validate_grammar_with_warnings(source, self._known[stop_ids])
        if broken:
            raise _refused(_first_line(notes[0]))
        matcher = matchers(self._known[stop_ids], source, log_level=0)
        if matcher.is_error():
            raise _refused(_first_line(matcher.get_error()))
        return Guide(matcher, self._pool, self._vocabulary)

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for: its text for control tokens, none for ids that the tokenizer does not know."""
        return self._bytes[token] if token < len(self._bytes) else b""

    def close(self) -> None:
        """Stop the threads; guides under way are of no use any more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _for_stops(self, stops: list[int]) -> Any:
        """llguidance's tokenizer, with our `encode`: its own would take text that it is forced to write for control."""
        backend = self._tokens.backend
        control = [backend.token_to_id(token) for token in self._tokens.control_tokens]
        described = _Described(self._tokens.encode, self._bytes, [id_ for id_ in control if id_ is not None], stops[0])
        return _llguidance().LLTokenizer(_llguidance().TokenizerWrapper(described), eos_token=stops)


class _Described:
    """A tokenizer in the shape that llguidance asks for."""

    bos_token_id = None

    def __init__(
        self, encode: Callable[[str], list[int]], tokens: list[bytes], special_token_ids: list[int], eos_token_id: int
    ) -> None:
        self._encode = encode
        self.tokens = tokens
        self.special_token_ids = special_token_ids
        self.eos_token_id = eos_token_id

    def __call__(self, text: bytes) -> list[int]:
        return self._encode(text.decode("utf-8", "replace"))


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise UserError(
            "constrained decoding needs llguidance, which is not installed: pip install 'agentrft[torch]'",
            code="torch_missing",
        ) from error
    return llguidance


def _grammar(schema: Any) -> str:
    if not isinstance(schema, dict | bool):
        raise _refused(f"a JSON Schema is an object, got {type(schema).__name__}")
    whole: dict[str, Any] = schema if isinstance(schema, dict) else {} if schema else {"not": {}}
    # llguidance reads options from the schema itself; ours are the only ones.
    whole = {key: value for key, value in whole.items() if key != "x-guidance"}
    try:
        return _llguidance().LLMatcher.grammar_from_json_schema(
            json.dumps(whole), overrides={"whitespace_pattern": _WHITE_SPACE}
        )
    except ValueError as error:  # its own reader of JSON takes fewer levels than Python's
        raise _refused(_first_line(str(error))) from None


def _refused(why: str) -> UserError:
    return UserError(
        f"the reply cannot be held to this schema or grammar: {why}. Expected features that can be kept to the letter; "
        "leave that one out, or check the reply yourself",
        param="response_format",
        code="constraint_unsupported",
    )


def _first_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return " ".join(lines)[:300] if lines else "no reason given"
