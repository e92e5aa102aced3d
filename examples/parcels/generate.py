"""Write parcels' rows and demonstrations: `python generate.py --seed 0 --out data`.

The same seed gives the same bytes. Every row has a depot of its own; no row is in two files, except that demonstrations
are of the last rows of `train.jsonl` (same `id`).
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from depot import NUMBERS, ZONES, Depot


def _words(text: str) -> list[str]:
    return text.split()


# No word is part of another one, so that a name finds its own parcels only.
PEOPLE = _words(
    "adam bela carla dora emil fay gus hugo ivan jun kim lena mia nils omar pia rosa sven tess uma vera will"
)
THINGS = _words("book bowl chair clock coat desk drum kite lamp mug rug tent vase")
QUESTIONS = (
    "Move the {what} for {who} to {to}. Where was it?",
    "Put the {what} for {who} on {to} and say where it was.",
    "The {what} for {who} belongs on {to}. Which shelf was it on?",
    "Bring the {what} for {who} to {to}. Which shelf did it come from?",
)
SPLITS = {"train": 600, "validation": 150, "test": 150, "harder": 100}
DEMONSTRATIONS = 128
SEARCHES = 18
"""Of the demonstrations, how many search for the name instead of walking through the zones: 14 %."""
CHECKED = 2 / 3
"""Of the walks that have a call left, how many list the new zone at the end, to see that the parcel is there."""
MAX_CALLS = 4


def make_row(rng: random.Random, split: str) -> dict:
    """One parcel to be moved in one depot; what and for whom it is names exactly one."""
    per_person, per_zone = (3, 3) if split == "harder" else (1, 2)
    shelves = [f"{zone}{number}" for zone in ZONES for number in rng.sample(NUMBERS, per_zone)]
    rng.shuffle(shelves)
    owners = [who for who in rng.sample(PEOPLE, len(shelves) // per_person) for _ in range(per_person)]
    things = [what for _ in range(0, len(shelves), per_person) for what in rng.sample(THINGS, per_person)]
    ids = rng.sample(range(10, 100), len(shelves))
    lines = [f"{what} {who} {shelf}" for what, who, shelf in zip(things, owners, shelves, strict=True)]
    rng.shuffle(lines)
    parcels = {f"P{number}": line for number, line in zip(ids, lines, strict=True)}
    parcel = rng.choice(list(parcels))
    what, who, answer = parcels[parcel].split()
    to = rng.choice([f"{zone}{number}" for zone in ZONES for number in NUMBERS if f"{zone}{number}" != answer])
    question = rng.choice(QUESTIONS).format(what=what, who=who, to=to)
    return {
        "messages": [{"role": "user", "content": question}],
        "parcel": parcel,
        "to": to,
        "answer": answer,
        "parcels": parcels,
    }


def walk(rng: random.Random, row: dict) -> list[tuple[str, dict]]:
    """The long way: list zones in random order until the parcel is there, move it, often look whether it worked."""
    zones = list(ZONES)
    while True:
        rng.shuffle(zones)
        visited = zones[: zones.index(row["answer"][0]) + 1]
        if len(visited) + 1 <= MAX_CALLS:
            break
    calls = [*(("list", {"zone": zone}) for zone in visited), _move(row)]
    return [*calls, _look(row)] if len(calls) < MAX_CALLS and rng.random() < CHECKED else calls


def search(row: dict) -> list[tuple[str, dict]]:
    """The shorter way: search for the name, move the parcel, look whether it worked."""
    return [("find", {"text": row["parcels"][row["parcel"]].split()[1]}), _move(row), _look(row)]


def _move(row: dict) -> tuple[str, dict]:
    return "move", {"id": row["parcel"], "shelf": row["to"]}


def _look(row: dict) -> tuple[str, dict]:
    return "list", {"zone": row["to"][0]}


def demonstrate(row: dict, calls: list[tuple[str, dict]]) -> dict:
    """The calls carried out in the real depot, then the answer."""
    depot = Depot(row["parcels"])
    messages = list(row["messages"])
    for turn, (name, arguments) in enumerate(calls):
        call_id = f"call_{turn}_0"
        function = {"name": name, "arguments": json.dumps(arguments)}
        messages.append(
            {"role": "assistant", "tool_calls": [{"id": call_id, "type": "function", "function": function}]}
        )
        messages.append({"role": "tool", "tool_call_id": call_id, "content": getattr(depot, name)(**arguments)})
    messages.append({"role": "assistant", "content": row["answer"]})
    return {"id": row["id"], "messages": messages}


def make_demonstrations(seed: int, rows: list[dict]) -> list[dict]:
    """Most walk, a few search; none does the shortest: search, move, answer."""
    rng = random.Random(f"{seed} demonstrations")
    searches = set(rng.sample(range(len(rows)), SEARCHES))
    return [
        demonstrate(row, search(row) if position in searches else walk(rng, row)) for position, row in enumerate(rows)
    ]


def make_splits(seed: int) -> dict[str, list[dict]]:
    """Every split's rows; a row that was made before is made again."""
    seen: set[str] = set()
    splits: dict[str, list[dict]] = {}
    for split, size in SPLITS.items():
        rng = random.Random(f"{seed} {split}")
        rows: list[dict] = []
        while len(rows) < size:
            row = make_row(rng, split)
            content = json.dumps(row)
            if content not in seen:
                seen.add(content)
                rows.append({"id": f"{split}-{len(rows)}", **row})
        splits[split] = rows
    return splits


def main() -> None:
    parser = argparse.ArgumentParser(description="Write parcels' rows and demonstrations.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    files = make_splits(arguments.seed)
    files["demonstrations"] = make_demonstrations(arguments.seed, files["train"][-DEMONSTRATIONS:])
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        lines = [json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in rows]
        (arguments.out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
