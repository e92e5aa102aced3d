"""The task of the tool-latency benchmark: two things to look up, one call for each, then a fixed answer.

Standard library only, because it also runs inside the peers' environments.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable
from typing import Any

CALLS = 2
"""An episode as it should be makes exactly this many."""
ANSWER = "Done."
SYSTEM = f"Look things up one at a time, in the order asked. Once both are known, answer: {ANSWER}"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Say where something is kept.",
        "parameters": {
            "type": "object",
            "properties": {"name": {"type": "string", "description": "What to look for."}},
            "required": ["name"],
        },
    },
}
"""As transformers describes a Python function, so that every side shows the model the same prompt."""

_THINGS = (
    "amber anchor apple arrow basket bell birch book bottle bread brick brush bucket butter button candle carpet chain "
    "chair cheese clock coal coat copper corn cotton cup curtain drum feather flag flour flute fork garlic glass glove "
    "grain hammer hat honey horn iron jar kettle key ladder lamp lemon letter map mirror nail needle oil onion oven "
    "paint paper pear pen pepper pillow pipe plate pot rice ring rope sail salt saw shell shoe silk silver soap spoon "
    "stone stove sugar table tea tent thread tile towel tray wax wheel whistle wine wire wool"
)


def pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """`count` different pairs of different things; the same for everyone who passes the same seed."""
    things, draw = _THINGS.split(), random.Random(seed)
    drawn: dict[tuple[str, str], None] = {}
    while len(drawn) < count:
        first, second = draw.sample(things, 2)
        drawn[first, second] = None
    return list(drawn)


def messages_for(pair: tuple[str, str]) -> list[dict[str, str]]:
    """What an episode starts from, in OpenAI's shape."""
    first, second = pair
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"Look up {first}, then {second}."},
    ]


def found(name: str) -> str:
    """What the tool answers."""
    return f"{name}: shelf {zlib.crc32(name.encode()) % 10}"


def digest(prompts: Iterable[Iterable[int]]) -> int:
    """A number that is equal for equal prompt ids, to see that both sides were asked the same."""
    return zlib.crc32(repr([list(ids) for ids in prompts]).encode())
