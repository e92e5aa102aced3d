"""Write filenav's rows and demonstrations: `python generate.py --seed 0 --out data`.

The same seed gives the same bytes. Every row has a tree of its own; no row is in two files, except that demonstrations
are of the last rows of `train.jsonl` (same `id`).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

from tools import FileTree


def _words(text: str) -> list[str]:
    return text.split()


SERVICES = _words(
    "alerts auth billing cache cart catalog chat events login mail maps media music news orders photos profile queue "
    "report search stock users video wallet"
)
NEW_SERVICES = _words("badge ledger pricing ranking refund survey travel voice")
TOP_FOLDERS = _words("apps core deploy edge infra live services stack")
ZONES = _words("east north south west")
ENVS = _words("prod staging dev")
OWNERS = _words("ana ben carla dora emil fay gus hana ivan jun kim lena mia nils omar pia")
REGIONS = _words("austin cairo delhi dublin lima oslo paris seoul sydney tokyo")
SETTINGS: dict[str, Callable[[random.Random], str]] = {
    "port": lambda rng: str(rng.randrange(3000, 9999)),
    "memory": lambda rng: f"{rng.randrange(2, 96)}G",
    "replicas": lambda rng: str(rng.randrange(2, 40)),
    "timeout": lambda rng: f"{rng.randrange(5, 300)}s",
    "owner": lambda rng: rng.choice(OWNERS),
    "region": lambda rng: rng.choice(REGIONS),
}
QUESTIONS = (
    "What is the {key} of {service} in {env}?",
    "Which {key} does {service} use in {env}?",
    "Find the {env} {key} of {service}.",
    "{service} {env}: what is its {key}?",
)
SPLITS = {"train": 600, "validation": 150, "test": 150, "new_names": 100, "harder": 100}
DEMONSTRATIONS = 128
SEARCHES = 18
"""Of the demonstrations, how many search for the service instead of walking the folders: 14 %."""
MAX_CALLS = 4


def make_row(rng: random.Random, split: str) -> dict:
    """One question about one tree; the answer is in exactly one line of exactly one file."""
    services = rng.sample(NEW_SERVICES if split == "new_names" else SERVICES, 6)
    folders = _deep_folders(rng, services) if split == "harder" else _folders(rng, services)
    tree = {folder: _settings(rng) for folder in folders}
    target = rng.choice([folder for folder in folders if "-" not in folder])
    service = target.rsplit("/", 1)[1]
    env, key = rng.choice(ENVS), rng.choice(list(tree[target]))
    for folder in folders:  # what looks like the service has the same keys, so that only its name tells it apart
        if f"/{service}-" in folder:
            tree[folder] = {name: _values(rng, name) for name in tree[target]}
    question = rng.choice(QUESTIONS).format(key=key, service=service, env=env)
    return {
        "messages": [{"role": "user", "content": question}],
        "service": service,
        "key": key,
        "file": f"{target}/{env}.conf",
        "answer": tree[target][key].split()[ENVS.index(env)],
        "envs": ENVS,
        "tree": tree,
    }


def _folders(rng: random.Random, services: list[str]) -> list[str]:
    tops = rng.sample(TOP_FOLDERS, 3)
    return [f"/{tops[position % 3]}/{service}" for position, service in enumerate(services)]


def _deep_folders(rng: random.Random, services: list[str]) -> list[str]:
    """A level more, and for each service a retired namesake somewhere else."""
    tops, zones = rng.sample(TOP_FOLDERS, 3), rng.sample(ZONES, 2)
    names = [*services, *(f"{service}-{rng.choice(['old', 'test', 'v1'])}" for service in services)]
    rng.shuffle(names)
    return [f"/{tops[position % 3]}/{rng.choice(zones)}/{name}" for position, name in enumerate(names)]


def _settings(rng: random.Random) -> dict[str, str]:
    return {key: _values(rng, key) for key in rng.sample(list(SETTINGS), 4)}


def _values(rng: random.Random, key: str) -> str:
    """A different value for each environment, so that a value tells which file it came from."""
    values: list[str] = []
    while len(values) < len(ENVS):
        value = SETTINGS[key](rng)
        if value not in values:
            values.append(value)
    return " ".join(values)


def walk(rng: random.Random, row: dict) -> list[tuple[str, dict]]:
    """The long way: list the root, list top folders in random order until the service is there, print the file."""
    tops = sorted({folder.split("/")[1] for folder in row["tree"]})
    target_top = row["file"].split("/")[1]
    while True:
        rng.shuffle(tops)
        visited = tops[: tops.index(target_top) + 1]
        if len(visited) + 2 <= MAX_CALLS:
            break
    listings = [("ls", {"path": path}) for path in ["/", *(f"/{top}" for top in visited)]]
    return [*listings, ("cat", {"path": row["file"]})]


def search(row: dict) -> list[tuple[str, dict]]:
    """The shorter way: search everything for the service, print the file."""
    return [("grep", {"text": row["service"], "path": "/"}), ("cat", {"path": row["file"]})]


def demonstrate(row: dict, calls: list[tuple[str, dict]]) -> dict:
    """The calls carried out by the real tools, then the answer."""
    tree = FileTree(row)
    messages = list(row["messages"])
    for turn, (name, arguments) in enumerate(calls):
        call_id = f"call_{turn}_0"
        function = {"name": name, "arguments": json.dumps(arguments)}
        messages.append(
            {"role": "assistant", "tool_calls": [{"id": call_id, "type": "function", "function": function}]}
        )
        messages.append({"role": "tool", "tool_call_id": call_id, "content": getattr(tree, name)(**arguments)})
    messages.append({"role": "assistant", "content": row["answer"]})
    return {"id": row["id"], "messages": messages}


def make_demonstrations(seed: int, rows: list[dict]) -> list[dict]:
    """Most walk, a few search; none answers after one call, none searches for service and key at once."""
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
