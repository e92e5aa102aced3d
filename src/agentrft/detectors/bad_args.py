"""Arguments that the schema or the tool does not take, by tool, argument and what is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, UnknownType, ValidationError
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key, clip
from agentrft.detectors.values import is_id, shape, shows
from agentrft.detectors.view import Step, View, World
from agentrft.detectors.words import is_about_arguments, is_not_found

Problem = tuple[str, str, str]
"""(tool, argument or empty, keyword of the schema or `rejected`)."""
_MIN_SHAPES = 2


def find(world: World) -> Iterator[Finding]:
    """One finding per tool, argument and keyword; with an example that was accepted, where there is one."""
    rejected = [(view, step) for view in world.views for step in view.steps if _is_rejection(step)]
    by_form = _told_apart_by_form(world)
    hits: list[tuple[Problem, Evidence]] = [hit for view in world.views for hit in _violations(view)]
    seen = {(evidence.episode_id, evidence.turn, evidence.call) for _, evidence in hits}
    for view, step in rejected:
        if (view.id, step.turn, step.call) in seen or _needs_another_tool(view, step):
            continue
        argument = _argument_named(step) or by_form.get(step.name, "")
        if argument or is_about_arguments(step.output) or step.name in by_form:
            hits.append(((step.name, argument, "rejected"), view.at(step, f"{step.shown} → {clip(step.output)}")))
    for problem, evidence in by_key(hits).items():
        yield _finding(world, problem, evidence)


def _finding(world: World, problem: Problem, evidence: tuple[Evidence, ...]) -> Finding:
    tool, argument, keyword = problem
    name = f"{tool}.{argument}" if argument else tool
    example = _accepted(world, tool, argument)
    such_as = f", e.g. {clip(example, 40)}" if example else ""
    return Finding(
        kind=Kind.BAD_ARGS,
        title=f"{name}: {_WRONG.get(keyword, f'breaks `{keyword}`')}",
        owner=Owner.INTERFACE,
        description=f"Calls of {tool} are refused for {argument or 'their arguments'}, in "
        f"{len({e.episode_id for e in evidence})} episodes.",
        evidence=evidence,
        proposal=f"Say in the description of `{argument or tool}` what it takes{such_as}.",
        target={"tool": tool, "argument": argument, "keyword": keyword, **({"example": example} if example else {})},
    )


_WRONG = {
    "rejected": "the tool rejects what it gets",
    "required": "left out",
    "type": "wrong type",
    "additionalProperties": "not an argument of this tool",
    "enum": "not one of the values that exist",
}


def _violations(view: View) -> Iterator[tuple[Problem, Evidence]]:
    for step in view.steps:
        spec = view.specs.get(step.name)
        if spec is None or step.arguments is None or step.succeeded or step.is_outage:
            continue
        for argument, keyword in dict.fromkeys(_errors(spec.parameters, step.arguments)):
            yield (step.name, argument, keyword), view.at(step, f"{step.shown}: {argument} breaks {keyword}")


def _errors(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(argument, keyword) of everything that is wrong; nothing where the schema itself cannot be used."""
    try:
        # Given a registry, jsonschema does not try the network for references.
        errors = list(Draft202012Validator(dict(schema), registry=REGISTRY).iter_errors(arguments))
    except (SchemaError, UnknownType, Unresolvable, RecursionError, re.error):
        return
    for error in errors:
        yield from _named(error)


def _named(error: ValidationError) -> Iterator[tuple[str, str]]:
    keyword = str(error.validator)
    path = ".".join(str(part) for part in error.absolute_path if not isinstance(part, int))
    instance, schema = error.instance, error.schema if isinstance(error.schema, Mapping) else {}
    if keyword == "required" and isinstance(instance, dict):
        names = [name for name in schema.get("required", ()) if name not in instance]
    elif keyword == "additionalProperties" and isinstance(instance, dict):
        names = [name for name in instance if name not in schema.get("properties", {})]
    else:
        yield path, keyword
        return
    yield from ((f"{path}.{name}" if path else str(name), keyword) for name in names)


def _is_rejection(step: Step) -> bool:
    """The tool was asked and said no to this call: no outage, and not for want of the thing it names."""
    if not step.failed or not step.was_asked or step.is_outage or step.arguments is None:
        return False
    return not (is_not_found(step.output) and any(is_id(value) or "/" in value for _, value in step.values()))


def _argument_named(step: Step) -> str:
    """The argument that the message names, as a word of its own; empty when it names none or several."""
    told = step.output
    for name, value in (step.arguments or {}).items():  # what the call itself said is not the tool's word
        told = told.replace(value, " ") if isinstance(value, str) and len(value) > len(name) else told
    named = [name for name in step.arguments or {} if len(name) >= 3 and shows(told, name)]
    return named[0] if len(named) == 1 else ""


def _needs_another_tool(view: View, step: Step) -> bool:
    """A message that names another tool is about order."""
    return bool(view.tools_named(step))


def _told_apart_by_form(world: World) -> dict[str, str]:
    """Tool → argument whose form alone tells accepted calls from rejected ones: a rule in whatever language."""
    good: dict[tuple[str, str], list[str]] = {}
    bad: dict[tuple[str, str], list[str]] = {}
    for view in world.views:
        for step in view.steps:
            is_bad = _is_rejection(step) and not is_not_found(step.output)
            for path, value in step.values() if step.succeeded or is_bad else ():
                (good if step.succeeded else bad).setdefault((step.name, path), []).append(shape(value))
    return {
        tool: argument
        for (tool, argument), rejected in bad.items()
        if len(rejected) >= _MIN_SHAPES
        and len(good.get((tool, argument), ())) >= _MIN_SHAPES
        and not {*rejected} & {*good[tool, argument]}
        and len({*good[tool, argument]}) <= 2
    }


def _accepted(world: World, tool: str, argument: str) -> str:
    """The value, or the whole arguments, of the latest call that the tool answered."""
    steps = [step for view in world.views for step in view.steps if step.name == tool and step.succeeded]
    for step in reversed(steps):
        if not argument:
            return step.key[1]
        if argument in (step.arguments or {}):
            return json.dumps((step.arguments or {})[argument], ensure_ascii=False)
    return ""
