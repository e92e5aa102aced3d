"""Write staff's directory, rows and demonstrations: `python generate.py --seed 0 --out data`.

The same seed gives the same bytes. Every row asks about a person of its own, whom no other row asks about;
demonstrations are of the last rows of `train.jsonl` (same `id`).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

from directory import Directory, Reader

Person = dict[str, str]


def _words(text: str) -> list[str]:
    return text.split()


FIRST_NAMES = _words(
    "adam ana ben bela carla dora emil fay gus hana ivan jun kim lena mia nils omar pia rosa sven tess uma vera will"
)
SURNAME_STARTS = _words("ash birch black brook clay cold elm fair gold green hart high lang north oak red")
SURNAME_ENDS = _words("berg dale field ford ham ley man wood")
NEW_FIRST_NAMES = _words("alma bruno cleo dina enzo flora gina hugo iris jonas kara leo")
NEW_SURNAME_STARTS = _words("salt stone west wild")
MIDDLE_NAMES = _words("ada eva lou max noa ray")
CITIES = _words("austin cairo delhi dublin lima oslo paris seoul sydney tokyo")
TEAMS = _words("audit design finance legal press sales safety support travel web")
FACTS: dict[str, Callable[[random.Random], str]] = {
    "phone": lambda rng: str(rng.randrange(2000, 9999)),
    "desk": lambda rng: f"{rng.choice('ABCDEFGH')}{rng.randrange(10, 99)}",
    "city": lambda rng: rng.choice(CITIES),
    "team": lambda rng: rng.choice(TEAMS),
}
QUESTIONS = (
    "What is the {key} of {name}?",
    "Which {key} does {name} have?",
    "Find the {key} of {name}.",
    "{name}: what is the {key}?",
)
SPLITS = {"train": 600, "validation": 150, "test": 150, "harder": 100}
OF_A_SURNAME = 8
"""So that a surname alone gives three pages."""
DEMONSTRATIONS = 128
SEARCHES = 18
"""Of the demonstrations, how many search for the whole name instead of the surname: 14 %."""
CHECKED = 2 / 3
"""Of the others that have a call and a page left, how many look at one page more, for another one of that name."""
MAX_CALLS = 4


def make_names(rng: random.Random) -> list[str]:
    """Everybody whom `train`, `validation` and `test` may ask about, in random order."""
    surnames = [start + end for start in SURNAME_STARTS for end in SURNAME_ENDS]
    names = [f"{first} {surname}" for surname in surnames for first in rng.sample(FIRST_NAMES, OF_A_SURNAME)]
    rng.shuffle(names)
    return names


def make_harder_names(rng: random.Random) -> tuple[list[str], list[str]]:
    """Names of words that occur nowhere else, and for each of them two namesakes with a middle name."""
    surnames = [start + end for start in NEW_SURNAME_STARTS for end in SURNAME_ENDS]
    names = rng.sample([f"{first} {surname}" for surname in surnames for first in NEW_FIRST_NAMES], SPLITS["harder"])
    namesakes = [
        f"{first} {middle} {surname}"
        for first, surname in map(str.split, names)
        for middle in rng.sample(MIDDLE_NAMES, 2)
    ]
    return names, namesakes


def make_people(rng: random.Random, names: list[str]) -> list[Person]:
    """What is known of each, in the order of ids, which says nothing about names."""
    shuffled = rng.sample(names, len(names))
    ids = sorted(rng.sample(range(1000, 10000), len(names)))
    return [
        {"id": str(id), "name": name, **{key: fact(rng) for key, fact in FACTS.items()}}
        for id, name in zip(ids, shuffled, strict=True)
    ]


def make_row(rng: random.Random, id: str, person: Person) -> dict:
    """One question about one person."""
    key = rng.choice(list(FACTS))
    question = rng.choice(QUESTIONS).format(key=key, name=person["name"])
    return {
        "id": id,
        "messages": [{"role": "user", "content": question}],
        "person": person["id"],
        "name": person["name"],
        "key": key,
        "answer": person[key],
    }


def leaf(rng: random.Random, directory: Directory, row: dict) -> list[tuple[str, dict]]:
    """The long way: search for the surname, turn pages until the person is there, often one more, read all of it."""
    surname = row["name"].split()[1]
    lines = directory.find(surname)
    last = lines.index(f"{row['person']} {row['name']}") // 3 + 1
    if last + 1 < MAX_CALLS and last * 3 < len(lines) and rng.random() < CHECKED:
        last += 1
    turned = [("page", {"number": number}) for number in range(2, last + 1)]
    return [("search", {"text": surname}), *turned, _read(row)]


def search(row: dict) -> list[tuple[str, dict]]:
    """The shorter way: search for the whole name, read all about the person."""
    return [("search", {"text": row["name"]}), _read(row)]


def _read(row: dict) -> tuple[str, dict]:
    return "read", {"id": row["person"]}


def demonstrate(directory: Directory, row: dict, calls: list[tuple[str, dict]]) -> dict:
    """The calls carried out in the real directory, then the answer."""
    reader = Reader(directory)
    messages = list(row["messages"])
    for turn, (name, arguments) in enumerate(calls):
        call_id = f"call_{turn}_0"
        function = {"name": name, "arguments": json.dumps(arguments)}
        messages.append(
            {"role": "assistant", "tool_calls": [{"id": call_id, "type": "function", "function": function}]}
        )
        messages.append({"role": "tool", "tool_call_id": call_id, "content": getattr(reader, name)(**arguments)})
    messages.append({"role": "assistant", "content": row["answer"]})
    return {"id": row["id"], "messages": messages}


def make_demonstrations(seed: int, directory: Directory, rows: list[dict]) -> list[dict]:
    """Most leaf through a surname, a few search for the name; none puts what is asked for into the search."""
    rng = random.Random(f"{seed} demonstrations")
    searches = set(rng.sample(range(len(rows)), SEARCHES))
    return [
        demonstrate(directory, row, search(row) if position in searches else leaf(rng, directory, row))
        for position, row in enumerate(rows)
    ]


def make_splits(seed: int) -> tuple[list[Person], dict[str, list[dict]]]:
    """Everybody, and every split's rows."""
    rng = random.Random(f"{seed} people")
    names = make_names(rng)
    harder, namesakes = make_harder_names(rng)
    people = make_people(rng, [*names, *harder, *namesakes])
    by_name = {person["name"]: person for person in people}
    splits: dict[str, list[dict]] = {}
    for split, size in SPLITS.items():
        rng = random.Random(f"{seed} {split}")
        asked = harder if split == "harder" else [names.pop() for _ in range(size)]
        splits[split] = [make_row(rng, f"{split}-{k}", by_name[name]) for k, name in enumerate(asked)]
    return people, splits


def main() -> None:
    parser = argparse.ArgumentParser(description="Write staff's directory, rows and demonstrations.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    people, files = make_splits(arguments.seed)
    files["demonstrations"] = make_demonstrations(arguments.seed, Directory(people), files["train"][-DEMONSTRATIONS:])
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        lines = [json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in rows]
        (arguments.out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
    lines = ",\n".join(json.dumps(person, separators=(",", ":"), ensure_ascii=False) for person in people)
    (arguments.out / "people.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
