"""Edits as changes to the user's own job file: comments, order and quotes stay; what differs is a diff to review."""

from __future__ import annotations

import difflib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from agentrft.errors import UserError
from agentrft.optimise.edit import Edit, Place, apply_to, edited

_UNFOLDED = 1_000_000
"""Characters of a line before ruamel.yaml folds it, and leaves a space at its end."""


def edited_text(text: str, edits: Sequence[Edit]) -> str:
    """A job file (YAML or JSON) with the edits, everything else as it was written.

    Raises UserError where ruamel.yaml is not installed.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return _edited_yaml(text, edits)
    indent = re.search(r'^([ \t]+)"', text, re.MULTILINE)
    written = json.dumps(edited(document, edits), indent=indent and indent[1], ensure_ascii=text.isascii())
    return written + text[len(text.rstrip()) :]


def unified_diff(name: str, before: str, after: str, edits: Sequence[tuple[str, Edit]]) -> str:
    """The change as a unified diff; behind each hunk's `@@` stands which edits it holds and why.

    `edits` are (label, edit). `git apply` and `patch` read past what stands there.
    """
    lines = list(difflib.unified_diff(_lines(before), _lines(after), f"a/{name}", f"b/{name}"))
    files = [text for label, edit in edits for text in _new_files(label, edit)]
    return "".join([*map(_ended, _annotated(lines, edits)), *files])


def _annotated(lines: Sequence[str], edits: Sequence[tuple[str, Edit]]) -> list[str]:
    result = list(lines)
    starts = [number for number, line in enumerate(lines) if line.startswith("@@")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        added = "".join(line[1:] for line in lines[start + 1 : end] if line.startswith("+"))
        held = [_told(label, edit) for label, edit in edits if any(_is_in(mark, added) for mark in _marks(edit))]
        result[start] = f"{lines[start].rstrip()} {'; '.join(held)}\n" if held else lines[start]
    return result


def _marks(edit: Edit) -> list[str]:
    """Words by which an edit is known in a file: its sentences, else the last key of its places."""
    return [sentence for _, _, sentence in edit.adds] + [f"{place[-1]}:" for place, _ in edit.sets]


def _is_in(mark: str, text: str) -> bool:
    # Long sentences are folded over lines, and JSON has quotes where YAML has none.
    return re.sub(r'[\s"\\]', "", mark) in re.sub(r'[\s"\\]', "", text)


def _told(label: str, edit: Edit) -> str:
    """On one line: values of calls stand in it, and a tool's words."""
    return f"{label}: {' '.join(edit.why.split())}"


def _new_files(label: str, edit: Edit) -> list[str]:
    found = []
    for name, text in edit.files.items():
        lines = _lines(text)
        head = f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@ {_told(label, edit)}\n"
        found.append(head + "".join(_ended(f"+{line}") for line in lines))
    return found


def _lines(text: str) -> list[str]:
    """As `git` counts them: `str.splitlines` ends lines at a dozen further characters."""
    return re.findall(r"[^\n]*\n|[^\n]+\Z", text)


def _ended(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _edited_yaml(text: str, edits: Sequence[Edit]) -> str:
    """As ruamel.yaml writes it; where it would write other lines otherwise too, only the change is taken over."""
    before, after = _round_trip(text, ()), _round_trip(text, edits)
    carried = None if before == text else _carried(before, after, text)
    return after if carried is None or _read(carried) != _read(after) else carried


def _round_trip(text: str, edits: Sequence[Edit]) -> str:
    writer = _writer(text)
    document = writer.load(text)
    apply_to(document, edits, _put)
    written = io.StringIO()
    writer.dump(document, written)
    return written.getvalue()


def _carried(before: str, after: str, onto: str) -> str | None:
    """`onto` with the lines that differ between the other two; None where it has not the lines around them."""
    old, new, own = _lines(before), _lines(after), _lines(_ended_plainly(onto))
    blocks = difflib.SequenceMatcher(None, old, own, autojunk=False).get_matching_blocks()
    place = {block.a + n: block.b + n for block in blocks for n in range(block.size)} | {len(old): len(own)}
    for tag, i1, i2, j1, j2 in reversed(difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()):
        if tag == "equal":
            continue
        inside = [place.get(n) for n in range(i1, i2)]
        start = inside[0] if inside else place[i1 - 1] + 1 if i1 - 1 in place else place.get(i1)
        if start is None or None in inside:
            return None
        own[start : start + len(inside)] = new[j1:j2]
    return "".join(own)


def _ended_plainly(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _put(document: Any, place: Place, value: Any) -> None:
    from ruamel.yaml.comments import CommentedMap

    for key in map(_readable, place[:-1]):
        inner = document.get(key)
        if not isinstance(inner, CommentedMap):
            document[key] = CommentedMap()
        elif inner.yaml_anchor() is not None:  # what else is called by that name stays as it is
            document[key] = CommentedMap(inner)
        document = document[key]
    document[_readable(place[-1])] = _readable(value)


def _readable(value: Any) -> Any:
    """Texts in quotes where jobs are read as YAML 1.1, which takes `on` and `12:30` for something else."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, Mapping):
        return {_readable(key): _readable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(part) for part in value]
    is_other = isinstance(value, str) and re.fullmatch(r"[\w.:+-]+", value) and not isinstance(_read(value), str)
    return DoubleQuotedScalarString(value) if is_other else value


def _writer(text: str) -> Any:
    """Reads and writes YAML as the text is indented."""
    try:
        from ruamel.yaml import YAML
    except ImportError:
        raise UserError(
            "writing changes into a job file needs ruamel.yaml, which is not installed. Install it: "
            "pip install 'agentrft[optimise]'",
            code="missing_extra",
        ) from None
    writer = YAML()
    writer.preserve_quotes = True
    writer.width = _UNFOLDED
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    found = dict(reversed(list(_indents(node)))) if node is not None else {}
    sequence, offset = found.get("sequence", (4, 2))
    writer.indent(mapping=found.get("mapping", (2,))[0], sequence=sequence, offset=offset)
    return writer


def _indents(node: yaml.Node) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Columns by which blocks are indented: of mappings, and of lists (their values, their dashes)."""
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        return
    for key, value in node.value:
        is_block = isinstance(value, yaml.CollectionNode) and value.value and not value.flow_style
        column, dash = key.start_mark.column, value.start_mark.column
        if is_block and value.start_mark.line > key.start_mark.line:
            if isinstance(value, yaml.MappingNode):
                yield "mapping", (dash - column,)
            else:
                yield "sequence", (value.value[0].start_mark.column - column, dash - column)
        yield from _indents(value)
