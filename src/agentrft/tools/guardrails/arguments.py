"""What arguments must be beyond their schema: in range, of a form, and not made up.

`seen_in` is the most useful: an id must have stood in the output of a tool that gives ids, or in the prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from agentrft.tools.guardrails.history import History, Request
from agentrft.tools.guardrails.refusal import Refusal
from agentrft.tools.guardrails.spec import ArgumentRule
from agentrft.tools.steer import ErrorKind

PROMPT = "prompt"
_SHOWN = 40


def check_arguments(request: Request, history: History) -> Refusal | None:
    """A refusal that lists every argument that breaks a rule."""
    broken = [*_broken_rules(request, history), *_denied(request)]
    if not broken:
        return None
    names = ", ".join(dict.fromkeys(name for name, _ in broken))
    message = "; ".join(text for _, text in broken)
    return Refusal(rule=f"tools.{request.tool}.args.{names}", kind=ErrorKind.SCHEMA, message=message)


def _broken_rules(request: Request, history: History) -> Iterator[tuple[str, str]]:
    for name, rule in request.rules.args.items():
        if name not in request.arguments:
            continue
        values = request.arguments[name]
        for value in values if isinstance(values, list) else [values]:
            yield from ((name, f"{name}: {text}, got {_shown(value)}") for text in _objections(value, rule, history))


def _objections(value: Any, rule: ArgumentRule, history: History) -> Iterator[str]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if rule.minimum is not None and not (is_number and value >= rule.minimum):
        yield f"expected {rule.minimum:g} or more"
    if rule.maximum is not None and not (is_number and value <= rule.maximum):
        yield f"expected {rule.maximum:g} at most"
    if rule.pattern is not None and not re.search(rule.pattern, _text(value)):
        yield f"expected text like {rule.pattern}"
    if rule.starts_with is not None and not _text(value).startswith(rule.starts_with):
        yield f"expected text that starts with {rule.starts_with!r}"
    if rule.one_of is not None and value not in rule.one_of:
        yield f"expected one of {', '.join(_shown(one) for one in rule.one_of)}"
    if rule.seen_in and not _was_seen(_text(value), rule, history):
        sources = [f"the output of {glob}" if glob != PROMPT else "the question" for glob in rule.seen_in]
        yield f"expected a value from {' or '.join(sources)}"


def _denied(request: Request) -> Iterator[tuple[str, str]]:
    for name, patterns in request.rules.deny_args.items():
        text = _text(request.arguments.get(name, ""))
        if any(re.search(pattern, text) for pattern in patterns):
            yield name, f"{name}: {_shown(text)} is not allowed"


def _was_seen(value: str, rule: ArgumentRule, history: History) -> bool:
    """Whether the value stands in one of the sources, not as a part of a longer word or number."""
    whole = re.compile(rf"(?<!\w){re.escape(value)}(?!\w)")
    texts = [history.prompt] if PROMPT in rule.seen_in else []
    texts += [
        past.raw
        for past in history.past
        if past.answered and any(fnmatchcase(past.request.tool, glob) for glob in rule.seen_in)
    ]
    return bool(value) and any(whole.search(text) for text in texts)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
