"""Deterministic work: prompts as ids or as text of an exact token count, and a reward that only hashes tokens.

Standard library only, because it also runs inside the peers' environments.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Protocol

FIRST_PLAIN_ID = 1000
"""Ids from here up are ordinary word pieces in every tokenizer used here; special tokens sit below."""


class Tokenizer(Protocol):
    def decode(self, token_ids: Sequence[int]) -> str: ...
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


def token_prompts(count: int, length: int, *, vocabulary: int, seed: int = 0) -> list[list[int]]:
    """`count` different prompts of exactly `length` random ids each; the same for everyone who passes the same seed."""
    draw = random.Random(seed)
    return [[draw.randrange(FIRST_PLAIN_ID, vocabulary) for _ in range(length)] for _ in range(count)]


def text_prompts(count: int, length: int, tokenizer: Tokenizer, *, vocabulary: int, seed: int = 0) -> list[str]:
    """`count` different texts that encode to exactly `length` ids, for peers that take only text.

    Made of pieces that are one whole lower-case word with its space, so that encoding what was decoded gives the same
    ids again; checked, not assumed: raises ValueError otherwise.
    """
    draw = random.Random(seed)
    words: list[str] = []
    for token_id in range(FIRST_PLAIN_ID, vocabulary):
        word = tokenizer.decode([token_id])
        letters = word[1:]
        if word[:1] == " " and len(letters) > 2 and letters.isascii() and letters.isalpha() and letters.islower():
            words.append(word)
        if len(words) == 4000:
            break
    texts = ["".join(draw.choice(words) for _ in range(length)) for _ in range(count)]
    for text in texts:
        got = len(tokenizer.encode(text, add_special_tokens=False))
        if got != length:
            raise ValueError(f"prompt encodes to {got} ids, expected {length}; its pieces do not round-trip")
    return texts


def hash_reward(ids: Sequence[int]) -> float:
    """A number in [0, 1) that depends on every token and on nothing else: groups always have spread."""
    return zlib.crc32(struct.pack(f"<{len(ids)}I", *ids)) / 2**32


def grouped_prompts(request: Mapping[str, int], *, vocabulary: int) -> list[list[int]]:
    """The distinct prompts of a decode request: `sequences` continuations, `share` to a prompt of `prompt` ids.

    A new `seed` gives new prompts, so that no engine can answer from a cache of the last request.
    """
    count = max(request["sequences"] // request["share"], 1)
    return token_prompts(count, request["prompt"], vocabulary=vocabulary, seed=request["seed"])


def repeated(prompts: Sequence[list[int]], sequences: int) -> list[list[int]]:
    """`sequences` prompts in order, each as often as the others, for engines that take one prompt a sequence."""
    each = sequences // len(prompts)
    return [prompt for prompt in prompts for _ in range(each)]
