"""The needed value was shown and not used: another answer, or the same question again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key, clip
from agentrft.detectors.refusal_or_empty import refuses
from agentrft.detectors.values import is_same_value, is_specific, plain, shows
from agentrft.detectors.view import Step, View, World

_FLAGS = re.MULTILINE | re.IGNORECASE
_LONG = 12
"""Words: a value of one or two characters says something only where the output says little else."""

_WORDS = {
    "answer": "the right value was shown, another was answered",
    "again": "asked again for what was just shown",
}


def find(world: World) -> Iterator[Finding]:
    """One finding per tool whose output was ignored, and how."""
    hits = [hit for view in world.views for hit in (*_other_answer(world, view), *_same_again(view))]
    for (tool, way), evidence in by_key(hits).items():
        yield Finding(
            kind=Kind.IGNORED_OUTPUT,
            title=f"{tool}: {_WORDS[way]}",
            owner=Owner.OUTPUT,
            description=f"{_WORDS[way]}, after {tool}.",
            evidence=evidence,
            proposal=f"Shorten what {tool} shows (`agent.outputs`: project, table), with the key field first.",
            target={"tool": tool, "way": way},
        )


def _other_answer(world: World, view: View) -> Iterator[tuple[tuple[str, str], Evidence]]:
    """Nothing where the answer is right, refuses, or where a right one is not known."""
    if not view.answered or view.passed is not False or not view.answer or refuses(view.answer):
        return
    right = world.answers(view.item_id)
    if not right or any(is_same_value(view.answer, one) or shows(view.answer, one) for one in right):
        return
    for step in reversed(view.steps):
        found = next((one for one in right if step.succeeded and _says(step.output, one)), None)
        if found is not None:
            note = f"{step.shown} showed {clip(found, 30)!r}; answered {clip(view.answer, 30)!r}"
            yield (step.name, "answer"), view.at(step, note, recovered=False)
            return


def _says(output: str, value: str) -> bool:
    """Whether an output holds the value as a value: a word without digits may stand in any sentence."""
    if not shows(output, value):
        return False
    if not is_specific(value):
        return len(plain(output).split()) <= _LONG
    if any(char.isdigit() for char in value) or " " in plain(value) or len(plain(output).split()) <= _LONG:
        return True
    return bool(re.search(rf"(^|[=:|,;\"'>\t(])\s*{re.escape(value.strip())}\s*($|[=:|,;\"'<\t)\]}}])", output, _FLAGS))


def _same_again(view: View) -> Iterator[tuple[tuple[str, str], Evidence]]:
    """The same read in the next turn, with the same result; thrice is a loop, and so is not meant here."""
    reads = [step for step in view.steps if not view.writes(step) and step.name not in view.seen.polling]
    for step, again in pairwise(reads):
        is_next = again.turn == step.turn + 1 and sum(other.turn == again.turn for other in view.steps) == 1
        said_twice = sum((other.key, other.output) == (step.key, step.output) for other in reads) == 2
        if is_next and said_twice and _is_same(step, again):
            note = f"{step.shown} again, with the same result"
            yield (step.name, "again"), view.at(again, note, recovered=view.answered)


def _is_same(step: Step, again: Step) -> bool:
    both = step.succeeded and again.succeeded
    return both and step.key == again.key and step.output == again.output and bool(step.output.strip())
