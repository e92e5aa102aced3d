"""`{{item.x}}` and `{{sample.output_json.a[0]}}` in grader fields: parsed once, filled per grade.

A reference is a namespace (`item` or `sample`) and a path of `.name`, `[0]`, `[-1]` or `["any key"]` steps, with or
without spaces inside the braces. A value that is text is put in as it is, anything else as JSON. A value that is absent
or null cannot be filled in: the sample then gets no grade, with the reason. Filled text is not read for references.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

SAMPLE_KEYS = ("output_text", "output_json", "output_tools", "choices", "messages", "n_calls", "stop_reason")
"""What `sample` holds; the last three are ours, the others OpenAI's."""

_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_STEP = re.compile(r"""\.([^.\[\]{}()|\s"']+)|\[(-?\d{1,9})\]|\["([^"\]]*)"\]|\['([^'\]]*)'\]""")


class Missing(Exception):
    """A reference that this sample or item cannot fill; `str()` is the reason."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One `{{…}}`."""

    namespace: Literal["item", "sample"]
    path: tuple[str | int, ...]

    def __str__(self) -> str:
        return self.namespace + "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in self.path)


class Template:
    """A text with references, ready to be filled."""

    def __init__(self, text: str) -> None:
        """Raises ValueError naming the first reference that is not one."""
        self.parts: list[str | Reference] = []
        end = 0
        for match in _BRACES.finditer(text):
            self.parts += [text[end : match.start()], _reference(match[1].strip())]
            end = match.end()
        rest = text[end:]
        if "{{" in rest:
            raise ValueError(f"got {rest[rest.index('{{') :][:40]!r} without closing braces, expected {{{{item.key}}}}")
        self.parts.append(rest)

    @property
    def references(self) -> tuple[Reference, ...]:
        return tuple(part for part in self.parts if isinstance(part, Reference))

    def fill(self, sample: Mapping[str, Any], item: Mapping[str, Any]) -> str:
        """The text with every reference replaced; raises Missing."""
        spaces = {"sample": sample, "item": item}
        return "".join(p if isinstance(p, str) else reference_text(p, spaces[p.namespace]) for p in self.parts)


def _reference(inside: str) -> Reference:
    namespace = re.match(r"\w*", inside)
    name = namespace[0] if namespace else ""
    path: list[str | int] = []
    at = len(name)
    while at < len(inside) and (step := _STEP.match(inside, at)):
        key = next(group for group in step.groups() if group is not None)
        path.append(int(key) if step[2] is not None else key)
        at = step.end()
    if name not in ("item", "sample") or not path or at < len(inside):
        raise ValueError(
            f"got {{{{{inside[:60]}}}}}, expected a reference such as {{{{item.key}}}} or {{{{sample.output_text}}}}"
        )
    if name == "sample" and path[0] not in SAMPLE_KEYS:
        raise ValueError(f"got {{{{{inside[:60]}}}}}, expected one of sample.{', sample.'.join(SAMPLE_KEYS)}")
    return Reference(cast(Literal["item", "sample"], name), tuple(path))


def reference_text(reference: Reference, space: Mapping[str, Any]) -> str:
    """What `reference` stands for in its namespace, text as it is and anything else as JSON; raises Missing."""
    value: Any = space
    for step in reference.path:
        value = _follow(value, step)
        if value is None:
            raise Missing(f"there is no {reference} (or it is null)")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _follow(value: Any, step: str | int) -> Any:
    if isinstance(step, int):
        inside = isinstance(value, list | tuple) and -len(value) <= step < len(value)
        return value[step] if inside else None
    return value.get(step) if isinstance(value, Mapping) else None
