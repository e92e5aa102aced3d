"""Behaviour that is put into a real model's mouth, by name; in the line format of the example tasks.

About two fifths of a run's episodes are forced, the rest play on their own and are the contrast. In the two runs of
`_LED` some of the rest are led to the solution.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from agentrft.types import Item
from harness.forcing import Force

Touch = Callable[[tuple[int, int]], None]

_UNREADABLE = (
    ('{"name": "grep", "arguments": {"text":', "<tool_call>look it up</tool_call>", "```\nls /\n```"),
    (
        "I will look it up now",
        'call(tool="search", q=[1, 2',
        "=> next: query the data, then answer",
        "函数调用（查询）",
    ),
)
_REFUSALS = (
    ("I'm sorry, but I can't help with that.", "As an AI language model I cannot do this.", ""),
    ("Lo siento, no puedo ayudar con eso.", "I am unable to assist with this request.", "抱歉，我无法完成。", ""),
)
_FIRST = {"filenav": "ls {folder}", "parcels": "list {zone}", "units": "calc 1 + 1", "shopdb": "sql SELECT 1"}
_TWIN = {"filenav": "lookup {service}", "parcels": "lookup {word}", "shopdb": "lookup orders"}


def forced(name: str, task: str, seed: int, items: Sequence[Item], touch: Touch) -> Force:
    """The behaviour `name`; `touch` is told of every episode in which it shows."""

    def force(order: tuple[int, int], turn: int, said: str | None) -> str | None:
        rng = random.Random(f"{name}/{task}/{seed}/{order}")
        if (chance := rng.random()) >= _SHARE.get(name, 0.4):
            return _led(items[order[0]], turn) if said is None and name in _LED and chance < 0.7 else None
        text = _TABLE[name](task, seed, items[order[0]], turn, said, rng)
        if text is not None:
            touch(order)
        return text

    return force


def _unreadable(task: str, seed: int, item: Item, turn: int, said: str | None, rng: random.Random) -> str | None:
    return rng.choice(_UNREADABLE[seed]) if said is None and turn == rng.randint(0, 1) else None


_UNKNOWN = (
    ("greep {word} /", "list-zone A", "search_files {word}"),
    ("Cat /{word}", "findd {word}", "read_config {word}"),
)


def _unknown(task: str, seed: int, item: Item, turn: int, said: str | None, rng: random.Random) -> str | None:
    word = item.fields.get("service", "lamp")
    return rng.choice(_UNKNOWN[seed]).format(word=word) if said is None and turn == 0 else None


def _loop(task: str, seed: int, item: Item, turn: int, said: str | None, rng: random.Random) -> str | None:
    return _filled(_FIRST[task], item) if said is None and turn < 3 else None


def _early(task: str, seed: int, item: Item, turn: int, said: str | None, rng: random.Random) -> str | None:
    return f"Answer: {_wrong(item, rng)}" if said is None and turn == 0 else None


def _refusal(task: str, seed: int, item: Item, turn: int, said: str | None, rng: random.Random) -> str | None:
    return f"Answer: {rng.choice(_REFUSALS[seed])}".strip() if said and said.strip().startswith("Answer:") else None


def _made_up(task: str, seed: int, item: Item, turn: int, said: str | None, rng: random.Random) -> str | None:
    if said is not None or turn != 0:
        return None
    if task == "parcels":
        free = [f"P{n}" for n in range(10, 100) if f"P{n}" not in item.fields["parcels"]]
        return f"move {rng.choice(free)} {rng.choice('ABCDE')}{rng.choice('1234')}"
    return f"cat /{rng.choice(['srv', 'opt'])}/{rng.choice(['node', 'host'])}-{rng.randint(100, 999)}/prod.conf"


def _wrong_write(task: str, seed: int, item: Item, turn: int, said: str | None, rng: random.Random) -> str | None:
    """Another parcel is moved, once it has been seen in a list; then the model plays on."""
    others = [name for name in item.fields["parcels"] if name != item.fields["parcel"]]
    parcel = rng.choice(others)
    shelf = item.fields["parcels"][parcel].split()[2]
    if said is not None or turn > 1:
        return None
    return f"list {shelf[0]}" if turn == 0 else f"move {parcel} {rng.choice('ABCDE')}{'1234'[(int(shelf[1]) % 4)]}"


def _skipped(task: str, seed: int, item: Item, turn: int, said: str | None, rng: random.Random) -> str | None:
    """The move is left out: once the parcel is seen, the right answer comes at once."""
    if said is not None:
        return None
    return f"list {item.fields['answer'][0]}" if turn == 0 else f"Answer: {item.fields['answer']}"


def _ignored(task: str, seed: int, item: Item, turn: int, said: str | None, rng: random.Random) -> str | None:
    right = str(item.fields["answer"])
    return f"Answer: {_wrong(item, rng)}" if said and said.strip() == f"Answer: {right}" else None


def _twin(task: str, seed: int, item: Item, turn: int, said: str | None, rng: random.Random) -> str | None:
    """The twin is asked in place of the first call; then, half of the time, that must do for an answer."""
    if said is None and turn == 0:
        return _filled(_TWIN[task], item)
    return f"Answer: {_wrong(item, rng)}" if said is None and turn == 1 and rng.random() < 0.5 else None


_SHARE = {"ignored": 0.7}
"""It shows only where the model would have been right."""
_LED = ("wrong_write", "skipped")
"""Behaviours that only show beside successes, in a task that the model hardly ever solves."""


def _led(item: Item, turn: int) -> str | None:
    """The way to the solution of a parcels item."""
    parcel = item.fields["parcel"]
    way = (f"list {item.fields['answer'][0]}", f"move {parcel} {item.fields['to']}", f"Answer: {item.fields['answer']}")
    return way[turn] if turn < len(way) else None


_TABLE = {
    "unreadable": _unreadable,
    "unknown": _unknown,
    "loop": _loop,
    "early": _early,
    "refusal": _refusal,
    "made_up": _made_up,
    "wrong_write": _wrong_write,
    "skipped": _skipped,
    "ignored": _ignored,
    "twin": _twin,
}


def _filled(text: str, item: Item) -> str:
    fields = item.fields
    folder = next(iter(fields.get("tree", {"/": {}})))
    word = fields["parcels"][fields["parcel"]].split()[0] if "parcels" in fields else ""
    return text.format(folder=folder, zone="A", service=fields.get("service", ""), word=word)


def _wrong(item: Item, rng: random.Random) -> str:
    """Another value of the right one's form."""
    right = str(item.fields["answer"])
    for _ in range(20):
        text = "".join(rng.choice("123456789") if c.isdigit() else c for c in right)
        text = text if any(c.isdigit() for c in right) else right[::-1]
        if text != right:
            return text
    return f"{right}7"
