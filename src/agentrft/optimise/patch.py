"""Edits as changes to the user's own job file: comments, order and quotes stay; what differs is a diff to review."""

from __future__ import annotations

import difflib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from agentrft.errors import UserError
from agentrft.optimise.edit import Edit, Place, extended, value_at


def edited_text(text: str, edits: Sequence[Edit]) -> str:
    """A job file (YAML, or JSON, which is YAML) with the edits, everything else as it was written.

    Raises UserError where ruamel.yaml is not installed.
    """
    yaml = _yaml(text)
    document = yaml.load(text)
    for edit in edits:
        for place, value in edit.sets:
            _set(document, place, value)
        for place, told, sentence in edit.adds:
            _set(document, place, extended(str(value_at(document, place) or told), sentence))
    written = io.StringIO()
    yaml.dump(document, written)
    return written.getvalue()


def unified_diff(name: str, before: str, after: str, edits: Sequence[tuple[str, Edit]]) -> str:
    """The change as a unified diff; behind each hunk's `@@` stands which edits it holds and why.

    `edits` are (label, edit). `git apply` and `patch` read past what stands there.
    """
    lines = list(
        difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{name}", f"b/{name}"
        )
    )
    files = [text for label, edit in edits for text in _new_files(label, edit)]
    return "".join([*_annotated(lines, edits), *files])


def _annotated(lines: Sequence[str], edits: Sequence[tuple[str, Edit]]) -> list[str]:
    result = list(lines)
    starts = [number for number, line in enumerate(lines) if line.startswith("@@")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        added = "".join(line[1:] for line in lines[start + 1 : end] if line.startswith("+"))
        held = [f"{label}: {edit.why}" for label, edit in edits if any(_is_in(mark, added) for mark in _marks(edit))]
        result[start] = f"{lines[start].rstrip()} {'; '.join(held)}\n" if held else lines[start]
    return result


def _marks(edit: Edit) -> list[str]:
    """Words by which an edit is known in a file: its sentences, else the last key of its places."""
    return [sentence for _, _, sentence in edit.adds] + [f"{place[-1]}:" for place, _ in edit.sets]


def _is_in(mark: str, text: str) -> bool:
    # Long sentences are folded over lines.
    return "".join(mark.split()) in "".join(text.split())


def _new_files(label: str, edit: Edit) -> list[str]:
    found = []
    for name, text in edit.files.items():
        lines = text.splitlines(keepends=True)
        head = f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@ {label}: {edit.why}\n"
        found.append(head + "".join(f"+{line}" for line in lines))
    return found


def _set(document: Any, place: Place, value: Any) -> None:
    for key in place[:-1]:
        if not isinstance(document.get(key), Mapping):
            document[key] = {}
        document = document[key]
    document[place[-1]] = value


def _yaml(text: str) -> Any:
    """Reads and writes YAML as the text is indented."""
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.util import load_yaml_guess_indent
    except ImportError:
        raise UserError(
            "writing changes into a job file needs ruamel.yaml, which is not installed. Install it: "
            "pip install 'agentrft[optimise]'",
            code="missing_extra",
        ) from None
    _, indent, offset = load_yaml_guess_indent(text)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1_000  # narrower, and it folds lines with a space left at their ends
    yaml.indent(mapping=2, sequence=indent or 4, offset=2 if offset is None else offset)
    return yaml
