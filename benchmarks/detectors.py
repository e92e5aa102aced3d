"""Precision and recall of the failure classes, on episodes of a small model, with faults put in at the cause.

    python benchmarks/detectors.py --json detectors.json        # counts; plays first (an hour) where nothing is kept
    python benchmarks/detectors.py --play filenav,parcels        # only play
    python benchmarks/detectors.py --split dev --misses          # each miss and each find in vain, to learn from

THE SPLIT, fixed before the first episode was looked at: runs of seed 0 are for development, runs of seed 1 are held
out. Items, sampling seeds, wordings of faults (other messages, other languages), forms of schema defects and forced
replies all differ between the two (`harness/fault_table.py`). Figures quoted anywhere are those of seed 1.

Where the truth comes from: `injected` by whoever put the fault in, when it showed; `natural` by knowledge of the task's
world that detectors do not have (`harness/oracles.py`). A detector is right about an episode that has the class, by
either; recall counts injected episodes only. Classes that a fault entails, or for which there is no independent truth
in an episode, count neither way. Scripted agents (`harness/scripted_runs.py`) stand in where a small model never gets;
their figures have lines of their own.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrft.detectors import CLASSES, Finding, InForce, Seen, detect
from agentrft.protocols import EpisodeRecord
from agentrft.stats import wilson
from agentrft.store.codec import from_json
from agentrft.types import Item, Message, ToolSpec
from harness.oracles import Truth, of_setting, truth_of
from harness.result import machine, table

RUNS = Path.home() / ".cache" / "agentrft-bench" / "detectors" / "runs"
SPLITS = {"dev": 0, "held-out": 1}
MIN_CASES = 10
_SLIPS = {"unsafe_write", "missing_step", "early_stop", "hallucinated_ref"}
"""Classes whose owner is the agent."""
WANTED = {"precision": 0.9, "recall": 0.6}


@dataclass(frozen=True, slots=True)
class Run:
    """One recorded run."""

    name: str
    scripted: bool
    pass_threshold: float
    seen: Sequence[Seen]
    truths: Sequence[Truth]


def read_run(path: Path) -> Run:
    """A run from its file."""
    document = json.loads(zlib.decompress(path.read_bytes()))
    items = {one["id"]: _item(one) for one in document["items"]}
    tools = [ToolSpec(**spec) for spec in document["tools"]]
    fields = InForce.__dataclass_fields__
    limits = InForce(**{name: value for name, value in document["limits"].items() if name in fields})
    seen, truths = [], []
    for one in document["episodes"]:
        record: EpisodeRecord = from_json(one["record"])
        item = items[record.episode.item_id]
        seen.append(Seen(record=record, item=item, tools=tools, limits=limits, effects=document.get("effects", {})))
        if document.get("scripted"):
            injected, bearable = frozenset(one["injected"]), frozenset(one["bearable"])
            truths.append(Truth(injected, frozenset(one.get("natural", ())), bearable))
        else:
            truth = truth_of(document["task"], record, item, one["injected"], one)
            truths.append(of_setting(document["fault"], document["kind"], record, truth))
    name = f"{document['task']} {document['fault']}"
    return Run(name, bool(document.get("scripted")), document["pass_threshold"], seen, truths)


def _item(data: dict[str, Any]) -> Item:
    messages = tuple(Message(role=m["role"], content=m["content"]) for m in data["messages"])
    return Item(id=data["id"], messages=messages, fields=data["fields"])


@dataclass(slots=True)
class Count:
    """One class."""

    hits: int = 0
    """Injected and found."""
    misses: int = 0
    natural: int = 0
    """Found, not injected, and there all the same."""
    false: int = 0
    unjudged: int = 0
    """Found where it counts neither way."""


def judged(run: Run) -> Iterator[tuple[str, str, int, Finding | None]]:
    """(class, verdict, episode, finding): `hit`, `miss`, `natural`, `unjudged` or `false`."""
    found: dict[tuple[str, str], Finding] = {}
    for finding in detect(run.seen, pass_threshold=run.pass_threshold):
        for one in finding.evidence:
            found.setdefault((finding.kind.value, one.episode_id), finding)
    for place, (seen, truth) in enumerate(zip(run.seen, run.truths, strict=True)):
        for kind in (kind.value for kind in CLASSES[:-1]):
            finding = found.get((kind, seen.record.episode.id))
            if kind in truth.injected:
                yield kind, "hit" if finding else "miss", place, finding
            elif finding and kind in truth.natural:
                yield kind, "natural", place, finding
            elif finding:
                yield kind, "unjudged" if kind in truth.bearable else "false", place, finding
        yield from _residue(run, seen, truth, found, place)


def _residue(
    run: Run, seen: Seen, truth: Truth, found: dict[tuple[str, str], Finding], place: int
) -> Iterator[tuple[str, str, int, Finding | None]]:
    """`wrong_answer` belongs to failed episodes in which nothing else is known to be wrong, and to no others."""
    value = seen.record.grade.value
    finding = found.get(("wrong_answer", seen.record.episode.id))
    failed = value is not None and value < run.pass_threshold
    nothing = not (truth.injected | truth.natural)
    if failed and nothing and not truth.bearable:
        yield "wrong_answer", "hit" if finding else "miss", place, finding
    elif finding and (not failed or _unnoticed(seen, truth, found)):
        yield "wrong_answer", "false", place, finding


def _unnoticed(seen: Seen, truth: Truth, found: dict[tuple[str, str], Finding]) -> bool:
    """Whether a fault is there of which no detector speaks; the model's own slips are what the residue is for."""
    there = truth.injected | (truth.natural - _SLIPS)
    return bool(there) and not any((kind, seen.record.episode.id) in found for kind in there)


def tally(runs: Sequence[Run]) -> dict[str, Count]:
    """Counts by class."""
    counts = {kind.value: Count() for kind in CLASSES}
    for run in runs:
        for kind, verdict, _, _ in judged(run):
            count = counts[kind]
            match verdict:
                case "hit":
                    count.hits += 1
                case "miss":
                    count.misses += 1
                case "natural":
                    count.natural += 1
                case "unjudged":
                    count.unjudged += 1
                case _:
                    count.false += 1
    return counts


def figures(counts: dict[str, Count]) -> list[dict[str, Any]]:
    """Precision and recall with Wilson's intervals; None where there is nothing to divide by."""
    rows = []
    for kind, one in counts.items():
        n_found, cases = one.hits + one.natural + one.false, one.hits + one.misses
        precision = wilson(one.hits + one.natural, n_found) if n_found else None
        recall = wilson(one.hits, cases) if cases else None
        reached = (
            None
            if cases < MIN_CASES
            else bool(precision and precision.mean >= WANTED["precision"] and one.hits / cases >= WANTED["recall"])
        )
        rows.append(
            {
                "class": kind,
                "cases": cases,
                "found": n_found,
                "natural": one.natural,
                "false": one.false,
                "unjudged": one.unjudged,
                "precision": precision.to_json() if precision else None,
                "recall": recall.to_json() if recall else None,
                "reached": reached,
            }
        )
    return rows


def show(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """The table."""

    def share(interval: dict[str, Any] | None) -> str:
        return "-" if interval is None else f"{interval['mean']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"

    words = {None: "few cases", True: "reached", False: "MISSED"}
    body = [
        (
            row["class"],
            str(row["cases"]),
            str(row["found"]),
            str(row["natural"]),
            str(row["false"]),
            str(row["unjudged"]),
            share(row["precision"]),
            share(row["recall"]),
            words[row["reached"]],
        )
        for row in rows
        if row["cases"] or row["found"]
    ]
    header = (
        "class",
        "cases",
        "found",
        "natural",
        "false",
        "unjudged",
        "precision",
        "recall",
        f"target at >= {MIN_CASES} cases",
    )
    print(f"\n{title}\n{table([header, *body])}")


def explain(runs: Sequence[Run], only: str) -> None:
    """Every miss and every false find, with the episode."""
    for run in runs:
        for kind, verdict, place, finding in judged(run):
            if verdict in ("miss", "false") and only in ("", kind):
                seen, truth = run.seen[place], run.truths[place]
                episode = seen.record.episode
                note = next((e.note for e in finding.evidence if e.episode_id == episode.id), "") if finding else ""
                calls = [f"{c.name} {c.arguments}" for turn in episode.turns for c in turn.reply.tool_calls]
                answer = episode.answer
                print(f"{verdict} {kind} in {run.name} / {episode.item_id}: {note}")
                print(f"    {sorted(truth.injected | truth.natural)} {episode.stop_reason} {answer!r} {calls}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=[*SPLITS, "both"], default="held-out")
    parser.add_argument("--play", help="only play these tasks, e.g. filenav,parcels", metavar="TASKS")
    parser.add_argument("--faults", default="", help="with --play: only these faults, comma-separated")
    parser.add_argument("--misses", nargs="?", const="", help="print what went wrong, of one class or all")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    seeds = [seed for split, seed in SPLITS.items() if options.split in (split, "both")]
    if options.play or not any(RUNS.glob("*.z")):
        from harness.fault_runs import play_all
        from harness.fault_table import TASKS

        play_all(options.play.split(",") if options.play else TASKS, seeds, [f for f in options.faults.split(",") if f])
        if options.play:
            return
    from harness.scripted_runs import scripted_paths

    real = [read_run(path) for seed in seeds for path in sorted(RUNS.glob(f"*-seed{seed}.json.z"))]
    scripted = [read_run(path) for seed in seeds for path in scripted_paths(seed)]
    if options.misses is not None:
        explain([*real, *scripted], options.misses)
    rows, made_up = figures(tally(real)), figures(tally(scripted))
    n_real, n_scripted = (sum(len(run.seen) for run in runs) for runs in (real, scripted))
    n_injected = sum(bool(truth.injected) for run in real for truth in run.truths)
    show(f"{options.split}: {n_real} episodes of the real small model, {n_injected} with an injected fault", rows)
    show(f"{options.split}: {n_scripted} episodes of scripted agents", made_up)
    by_run = Counter(f"{run.name}" for run in real for _ in run.seen)
    document = {
        "split": options.split,
        "real": {"episodes": n_real, "injected": n_injected, "classes": rows, "runs": by_run},
        "scripted": {"episodes": n_scripted, "classes": made_up},
        "wanted": WANTED,
        "machine": machine(),
    }
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
