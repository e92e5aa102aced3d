"""Ids that nothing had shown before they were used."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key, clip
from agentrft.detectors.values import is_id, shape, shows
from agentrft.detectors.view import Step, View, World
from agentrft.detectors.words import is_not_found

_OWN = re.compile(
    r"idempotency|request|client|correlation|trace|session|nonce|token|new|password|query|sql|code$", re.I
)
_MAKES = re.compile(r"^(create|add|insert|new|make|register|open|start|put|post|save|write|schedule|book)", re.I)
_NAMED_ID = re.compile(
    r"(^|[_\W])(id|ids|uuid|key|sku|number|no|ref|reference)$|[a-z](Id|Ids|ID|Key|Ref|Number)$", re.I
)
_PATH = re.compile(r"(?=.*/)(?=.*[^\W\d_]{3})[\w./~-]{4,120}")
_ENDING = re.compile(r"\.[A-Za-z]\w{0,4}$")
_TOKENS = re.compile(r"[\w#@-]+")


def find(world: World) -> Iterator[Finding]:
    """One finding per tool and argument."""
    hits = [hit for view in world.views for step in view.steps for hit in _hits(view, step)]
    for (tool, argument), evidence in by_key(hits).items():
        yield Finding(
            kind=Kind.HALLUCINATED_REF,
            title=f"{tool}.{argument}: ids that nothing has shown",
            owner=Owner.AGENT,
            description=f"{tool} is called with an id for `{argument}` that stands neither in the prompt nor in an "
            "earlier result.",
            evidence=evidence,
            proposal=f"Guardrail `args: {{{argument}: {{seen_in: [prompt, <the tool that gives ids>]}}}}`, and name "
            f"that tool in the description of `{argument}`.",
            target={"tool": tool, "argument": argument},
        )


def _hits(view: View, step: Step) -> Iterator[tuple[tuple[str, str], Evidence]]:
    if step.arguments is None or step.name not in view.specs or step.is_outage or _OWN.search(step.name):
        return
    for path, value in step.values():
        name = path.rpartition(".")[2]
        if not (is_id(value) or _PATH.fullmatch(value)) or _OWN.search(name) or _is_known(view, step, value):
            continue
        if _is_refused(step, value) or _is_wrong_though_taken(view, step, name, value):
            yield (step.name, path), view.at(step, f"{step.shown}: {clip(value, 40)} was never shown")


def _is_known(view: View, step: Step, value: str) -> bool:
    """Shown as it is or in its parts (a path from a listing), or part of an earlier call that was answered."""
    answered = [other.text for other in view.steps if other.turn < step.turn and other.succeeded]

    def is_shown(text: str) -> bool:
        return view.was_shown(text, step.turn) or any(shows(made, text) for made in answered)

    if is_shown(value):
        return True
    # An ending such as `.conf` is no claim of its own.
    parts = [part for part in _TOKENS.findall(_ENDING.sub("", value)) if len(part) > 1]
    return (len(parts) > 1 or "/" in value) and all(is_shown(part) for part in parts)


def _is_refused(step: Step, value: str) -> bool:
    """The tool does not know it: it says so, or gives nothing."""
    if step.failed and step.was_asked:
        return is_not_found(step.output) or value.casefold() in step.output.casefold()
    return step.was_asked and step.output.strip() in ("", "null", "{}", "[]", "None")


def _is_wrong_though_taken(view: View, step: Step, name: str, value: str) -> bool:
    """Taken by a tool that does not make ids, for an argument that wants one of a form that had been shown."""
    if not step.succeeded or _MAKES.match(step.name) or not _NAMED_ID.search(name) or not view.writes(step):
        return False
    texts = [view.prompt, *view.outputs_before(step.turn)]
    return any(shape(token) == shape(value) and is_id(token) for text in texts for token in _TOKENS.findall(text))
