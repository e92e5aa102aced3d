"""Write units' rows and demonstrations: `python generate.py --seed 0 --out data`.

The same seed gives the same bytes. No row is in two files, except that demonstrations are of the last rows of
`train.jsonl` (same `id`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools import UNITS, calc, convert

Call = tuple[str, dict]

PAIRS = [
    ("km", "miles"),
    ("miles", "km"),
    ("meters", "feet"),
    ("feet", "meters"),
    ("inches", "cm"),
    ("cm", "inches"),
    ("kg", "pounds"),
    ("pounds", "kg"),
    ("liters", "gallons"),
    ("gallons", "liters"),
]
UNSEEN_PAIRS = [
    ("yards", "meters"),
    ("meters", "yards"),
    ("yards", "feet"),
    ("ounces", "grams"),
    ("grams", "ounces"),
    ("ounces", "pounds"),
    ("cups", "liters"),
    ("liters", "cups"),
    ("cups", "gallons"),
]
NOUNS = {"length": ("loop", "loops"), "mass": ("box", "boxes"), "volume": ("can", "cans")}
PEOPLE = {"length": ("ran", "ran"), "mass": ("lifted", "lifted"), "volume": ("drank", "drank")}
NAMES = ["Ana", "Ben", "Carla", "Emil", "Fay", "Gus", "Hana", "Ivan", "Kim", "Lena", "Mia", "Omar"]
SPLITS = {"train": 600, "validation": 150, "test": 150, "harder": 100}
DEMONSTRATIONS = 192


@dataclass(frozen=True)
class Question:
    """A question with the calls that answer it."""

    text: str
    unit: str
    short: list[Call]
    """In as few calls as possible."""
    long: list[Call]
    """One operation a call."""
    other: list[Call] | None = None
    """As short, in another order."""


def _calc(expression: str) -> Call:
    return "calc", {"expression": expression}


def _convert(value: str, unit: str, into: str) -> Call:
    return "convert", {"value": json.loads(value), "unit": unit, "into": into}


def run(call: Call) -> str:
    """What the real tool answers."""
    name, arguments = call
    return {"calc": calc, "convert": convert}[name](**arguments)


def _numbers(rng: random.Random) -> tuple[str, int, str]:
    """An amount, a count and another amount; never a whole number, so that nobody computes them in the head."""
    tenths = [n for n in range(11, 500) if n % 10]
    first, second = rng.sample(tenths, 2)
    return str(first / 10), rng.choice([n for n in range(3, 30) if n % 10]), str(second / 10)


def ask_convert(rng: random.Random, unit: str, into: str) -> Question:
    amount = str(rng.choice([n for n in range(110, 5000) if n % 10]) / 100)
    texts = ["How many {v} are {a} {u}?", "What is {a} {u} in {v}?", "Convert {a} {u} to {v}."]
    calls = [_convert(amount, unit, into)]
    return Question(rng.choice(texts).format(a=amount, u=unit, v=into), into, calls, calls)


def ask_sum(rng: random.Random, unit: str, into: str) -> Question:
    amount, count, other = _numbers(rng)
    _, nouns = NOUNS[UNITS[unit][0]]
    text = f"{count} {nouns} of {amount} {unit} and one of {other} {unit}: how many {unit} in all?"
    product = _calc(f"{count} * {amount}")
    return Question(text, unit, [_calc(f"{count} * {amount} + {other}")], [product, _calc(f"{run(product)} + {other}")])


def ask_product(rng: random.Random, unit: str, into: str) -> Question:
    amount, count, _ = _numbers(rng)
    noun, nouns = NOUNS[UNITS[unit][0]]
    text = f"One {noun} is {amount} {unit}. How many {into} are {count} {nouns}?"
    product = _calc(f"{count} * {amount}")
    calls = [product, _convert(run(product), unit, into)]
    one = _convert(amount, unit, into)
    return Question(text, into, calls, calls, [one, _calc(f"{count} * {run(one)}")])


def ask_sum_converted(rng: random.Random, unit: str, into: str) -> Question:
    whole = ask_sum(rng, unit, into)
    last = _convert(run(whole.short[-1]), unit, into)
    text = whole.text.replace(f"how many {unit} in all", f"how many {into}")
    return Question(text, into, [*whole.short, last], [*whole.long, last])


def ask_mixed(rng: random.Random, unit: str, into: str) -> Question:
    amount, _, other = _numbers(rng)
    one, two = rng.sample(NAMES, 2)
    first, second = PEOPLE[UNITS[unit][0]]
    text = f"{one} {first} {amount} {unit}, {two} {second} {other} {into}. How many {into} in all?"
    converted = _convert(amount, unit, into)
    calls = [converted, _calc(f"{run(converted)} + {other}")]
    return Question(text, into, calls, calls)


def ask_chain(rng: random.Random, unit: str, into: str) -> Question:
    """Two units in, the first one asked for: three calls at the least."""
    amount, count, other = _numbers(rng)
    _, nouns = NOUNS[UNITS[unit][0]]
    text = f"{count} {nouns} of {amount} {unit} and one of {other} {into}, shared by 7: how many {into} each?"
    product = _calc(f"{count} * {amount}")
    converted = _convert(run(product), unit, into)
    total = _calc(f"{run(converted)} + {other}")
    short = [product, converted, _calc(f"({run(converted)} + {other}) / 7")]
    return Question(text, into, short, [product, converted, total, _calc(f"{run(total)} / 7")])


KINDS: list[Callable[[random.Random, str, str], Question]] = [
    ask_convert,
    ask_sum,
    ask_product,
    ask_sum_converted,
    ask_mixed,
]


def make_row(rng: random.Random, split: str) -> tuple[dict, Question]:
    """One question with its answer, and how it may be found."""
    if split == "harder":
        question = rng.choice([ask_chain, ask_product, ask_mixed])(rng, *rng.choice(UNSEEN_PAIRS))
    else:
        question = rng.choice(KINDS)(rng, *rng.choice(PAIRS))
    ways: list[list[float]] = []
    for calls in (question.short, question.long, question.other or question.short):
        numbers = [float(run(call)) for call in calls]
        if numbers not in ways:
            ways.append(numbers)
    row = {
        "messages": [{"role": "user", "content": question.text}],
        "answer": run(question.short[-1]),
        "unit": question.unit,
        "calls": len(question.short),
        "ways": ways,
    }
    return row, question


def are_apart(ways: list[list[float]]) -> bool:
    """No step so near another that the grader would take one for both."""
    return all(abs(a - b) > 0.01 * abs(b) for way in ways for a, b in itertools.combinations(way, 2))


def demonstrate(row: dict, calls: list[Call], answer: str) -> dict:
    """The calls carried out by the real tools, then the answer."""
    messages = list(row["messages"])
    for turn, call in enumerate(calls):
        call_id = f"call_{turn}_0"
        function = {"name": call[0], "arguments": json.dumps(call[1])}
        messages.append(
            {"role": "assistant", "tool_calls": [{"id": call_id, "type": "function", "function": function}]}
        )
        messages.append({"role": "tool", "tool_call_id": call_id, "content": run(call)})
    messages.append({"role": "assistant", "content": answer})
    return {"id": row["id"], "messages": messages}


def make_demonstrations(seed: int, solved: list[tuple[dict, Question]]) -> list[dict]:
    """One operation a call in five of six; after a conversion, three in four convert back to check."""
    rng = random.Random(f"{seed} demonstrations")
    made = []
    for row, question in solved:
        calls = list(question.short if rng.random() < 1 / 6 else question.long)
        answer = run(calls[-1])
        name, arguments = calls[-1]
        if name == "convert" and rng.random() < 3 / 4:
            calls.append(_convert(answer, arguments["into"], arguments["unit"]))
        made.append(demonstrate(row, calls, answer))
    return made


def make_splits(seed: int) -> dict[str, list[tuple[dict, Question]]]:
    """Every split's rows; a question that was asked before is not asked again."""
    seen: set[str] = set()
    splits: dict[str, list[tuple[dict, Question]]] = {}
    for split, size in SPLITS.items():
        rng = random.Random(f"{seed} {split}")
        rows: list[tuple[dict, Question]] = []
        while len(rows) < size:
            row, question = make_row(rng, split)
            if question.text not in seen and are_apart(row["ways"]):
                seen.add(question.text)
                rows.append(({"id": f"{split}-{len(rows)}", **row}, question))
        splits[split] = rows
    return splits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    splits = make_splits(arguments.seed)
    files = {name: [row for row, _ in rows] for name, rows in splits.items()}
    files["demonstrations"] = make_demonstrations(arguments.seed, splits["train"][-DEMONSTRATIONS:])
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        lines = [json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in rows]
        (arguments.out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
