"""Items that cannot be solved as they stand: never solved, and different from the others in what they give."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from agentrft.detectors.finding import Finding, Kind, Owner
from agentrft.detectors.values import is_specific, leaves, plain, shows, text_of
from agentrft.detectors.view import View, World, reference_of
from agentrft.detectors.words import is_not_found

_MIN_EPISODES = 3
_MIN_ITEMS = 8
"""Items needed before what most of them have counts as a rule."""
_MIN_SOLVED = 5
_MOST = 0.85
_PLACEHOLDER = re.compile(r"\{\{\s*[\w.]+\s*\}\}|<(todo|tbd|insert[^>]*|placeholder)>|\[(insert|your)\b[^\]]*\]", re.I)


def find(world: World) -> Iterator[Finding]:
    """One finding per defect, about one item each: they are mended one by one."""
    suspects = [views for views in world.by_item.values() if _never_solved(views)]
    rules = _Rules(world)
    for views in suspects:
        why = _why(world, views, rules)
        if why is None:
            continue
        item = views[0].item_id
        yield Finding(
            kind=Kind.TASK_DEFECT,
            title=f"item {item}: {why[0]}",
            owner=Owner.TASK,
            description=f"0 of {len(views)} episodes solve it, and {why[1]}.",
            evidence=tuple(
                view.whole(why[1], turn=0 if view.episode.turns else None) for view in views if not view.is_fault
            ),
            proposal="Mend or drop the item before tuning or training on it.",
            target={"item": item, "defect": why[0]},
        )


def _never_solved(views: list[View]) -> bool:
    graded = [view for view in views if view.passed is not None]
    return len(graded) >= _MIN_EPISODES and not any(view.passed for view in graded)


def _why(world: World, views: list[View], rules: _Rules) -> tuple[str, str] | None:
    """(the defect, how it shows) or None."""
    question = views[0].question
    if not plain(question):
        return "empty prompt", "the item has no user message"
    if found := rules.placeholder(question):
        return "unfilled placeholder", f"its prompt holds {found!r}"
    if other := rules.contradicts(views[0]):
        return "contradicting references", f"item {other} asks the same with another reference"
    if name := rules.missing_in_prompt(views[0]):
        return "missing information", f"its prompt lacks its `{name}`, which nearly all other prompts name"
    if name := rules.missing_in_data(views[0]):
        return "missing fixture", f"its `{name}` stands nowhere in its data, as it does in nearly all other items"
    if rules.is_unreachable(views):
        return "missing fixture", "what its prompt names is in no tool, whatever the episodes try"
    return None


class _Rules:
    """What nearly all items have."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._firsts = [views[0] for views in world.by_item.values()]
        solved = [views for views in world.by_item.values() if any(view.passed for view in views)]
        self._is_competent = len(solved) >= 0.3 * len(world.by_item)
        # What solved items have is the rule, where there are enough: defects are not among them.
        self._models = [views[0] for views in solved] if len(solved) >= _MIN_SOLVED else self._firsts
        names = {name for view in self._models for name in view.seen.item.fields}
        self._named = [name for name in sorted(names) if self._is_usual(name, _in_question)]
        self._inside = [name for name in sorted(names) if self._is_usual(name, _in_data)]

    @property
    def _least(self) -> int:
        return min(_MIN_ITEMS, len(self._models)) if self._models is not self._firsts else _MIN_ITEMS

    def placeholder(self, question: str) -> str | None:
        """What was never filled in; nothing where a fifth of all prompts hold such marks, and so are about them."""
        found = _PLACEHOLDER.search(question)
        marked = sum(bool(_PLACEHOLDER.search(view.question)) for view in self._firsts)
        return found[0] if found and marked <= 0.2 * len(self._firsts) else None

    def contradicts(self, view: View) -> str | None:
        """Another item with the same prompt and data, and another reference."""
        mine = reference_of(view.seen.item.fields)
        for other in self._firsts if mine else ():
            theirs = reference_of(other.seen.item.fields)
            same = plain(other.prompt) == plain(view.prompt) and _data(other) == _data(view)
            if other is not view and theirs and same and set(map(plain, mine)) != set(map(plain, theirs)):
                return other.item_id
        return None

    def missing_in_prompt(self, view: View) -> str | None:
        """A field that this prompt does not name and nearly all others do."""
        return next((name for name in self._named if _in_question(view, name) is False), None)

    def missing_in_data(self, view: View) -> str | None:
        """A field whose value is not in the item's own data, as it is in nearly all others."""
        return next((name for name in self._inside if _in_data(view, name) is False), None)

    def _is_usual(self, name: str, has: Callable[[View, str], bool | None]) -> bool:
        found = [it for view in self._models if (it := has(view, name)) is not None]
        return len(found) >= self._least and sum(found) >= _MOST * len(found)

    def is_unreachable(self, views: list[View]) -> bool:
        """Whether the tools of a competent agent never have what this item asks for.

        Every episode calls with words of the prompt, and none of these calls is answered by more than "not found".
        """
        if not self._is_competent or len(views) < 4:
            return False
        tried = [[step for step in view.steps if step.was_asked and _quotes(view, step.values())] for view in views]
        if sum(bool(steps) for steps in tried) < _MOST * len(views):
            return False
        return all(_is_nothing(step.output, step.failed) for steps in tried for step in steps)


def _quotes(view: View, values: list[tuple[str, str]]) -> bool:
    return any(is_specific(value) and shows(view.question, value) for _, value in values)


def _is_nothing(output: str, failed: bool) -> bool:
    empty = plain(output) in ("", "null", "none", "no rows", "no match", "no matches", "no results", "0")
    return empty or is_not_found(output) or (failed and is_not_found(output))


def _in_question(view: View, name: str) -> bool | None:
    """Whether the prompt names the value of a field; None where that would say nothing."""
    value = _value(view, name)
    return None if value is None else shows(view.question, value)


def _in_data(view: View, name: str) -> bool | None:
    """Whether the value of a field stands in the item's structured fields; None where that would say nothing."""
    value = _value(view, name)
    fields = [one for one in view.seen.item.fields.values() if isinstance(one, dict | list)]
    texts = [text for one in fields for path, leaf in leaves(one) for text in (path, text_of(leaf))]
    return None if value is None or not texts else any(shows(text, value) for text in texts)


def _value(view: View, name: str) -> str | None:
    value = view.seen.item.fields.get(name)
    text = text_of(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    return text if is_specific(text) else None


def _data(view: View) -> str:
    """The item's fields that are not its reference."""
    answers = set(map(plain, reference_of(view.seen.item.fields)))
    fields = view.seen.item.fields.items()
    return repr(
        sorted(
            (k, repr(v)) for k, v in fields if k != "id" and plain(text_of(v) if _is_scalar(v) else "") not in answers
        )
    )


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)
