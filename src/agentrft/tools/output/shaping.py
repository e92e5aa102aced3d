"""The pipeline: decode → project → table → page → truncate. Pure but for what it hands to the episode's `KeptOutputs`.

Settings change what the model sees, so rollouts, evaluation and serving must shape alike: the result depends on the
arguments alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from agentrft.tools.output.carry import Carried, carry
from agentrft.tools.output.clean import OutputFlag, clean
from agentrft.tools.output.document import CannotRead, compact, map_strings, project, read_json
from agentrft.tools.output.fit import (
    Body,
    Count,
    Fit,
    Window,
    fit,
    fits,
    page_end,
    short_mark,
    total_tokens,
    with_short_header,
)
from agentrft.tools.output.kept import KeptOutputs, id_of
from agentrft.tools.output.marker import NARROW, call_for_more, full_mark
from agentrft.tools.output.spec import OutputSpec
from agentrft.tools.output.table import as_lines, as_table, find_rows
from agentrft.types import OutputStep

StepName = Literal["decode", "project", "table", "page", "truncate"]


class OutputLimits(Protocol):
    """What one output may cost; `agentrft.tools.ToolLimits` is one."""

    @property
    def output_tokens(self) -> int: ...

    @property
    def transport_bytes(self) -> int: ...

    @property
    def count_tokens(self) -> Count: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapedOutput:
    """Output as the model will see it."""

    text: str
    bytes_in: int
    """Size of the raw output (UTF-8)."""
    steps: tuple[OutputStep, ...]
    """Those that the settings ask for, in order; decode and truncate always."""
    flags: tuple[OutputFlag, ...] = ()
    kept_id: str | None = None
    """Under which the whole is kept, where something was left out and `offload` is on."""


def shape_output(
    raw: str | bytes,
    spec: OutputSpec,
    limits: OutputLimits,
    *,
    template_tokens: Sequence[str] = (),
    kept: KeptOutputs | None = None,
    call_number: int = 0,
) -> ShapedOutput:
    """`raw` within `limits`, shaped as `spec` says.

    `template_tokens` are the chat format's control tokens, taken out of the text. `kept` is the episode's store, which
    `offload` needs (ValueError without); `call_number` is the call's place among all calls of the episode, from which
    the output gets its id.
    """
    if spec.offload and kept is None:
        raise ValueError("offload is on, but there is no `kept`; pass the episode's KeptOutputs")
    carried = carry(raw, limits.transport_bytes, spec.keep)
    text, flags = clean(carried.text, template_tokens) if spec.strip else (carried.text, ())
    steps = [OutputStep(name="decode", bytes_in=carried.bytes_in, bytes_out=_size(text))]
    flags = [*carried.flags, *flags]
    body = _body(carried, text)
    if spec.projection is not None or spec.table is not None or spec.page_rows is not None:
        body = _reshape(body, spec, template_tokens, steps, flags)
    limit = limits.output_tokens if spec.max_tokens is None else spec.max_tokens
    body = with_short_header(body, limit, limits.count_tokens)
    end = page_end(body, body.header_chars, spec.page_rows)
    if spec.page_rows is not None:
        _log(steps, "page", body.text[:end])
        flags += [OutputFlag.PAGED] if end < len(body.text) else []
    if body.is_marked and end == len(body.text) and fits(body.text, limit, limits.count_tokens):
        return _shaped(body.text, carried, steps, flags)
    found, says_how = _fit(body, end, spec, limit, limits.count_tokens, id_of(call_number))
    flags += [OutputFlag.TRUNCATED] if found.window.shown_chars < end - found.window.start else []
    if kept is None or not spec.offload or not says_how:
        return _shaped(found.text, carried, steps, flags)
    kept.keep(call_number, body, spec.page_rows)
    return _shaped(found.text, carried, steps, flags, kept_id=id_of(call_number))


def _reshape(
    body: Body, spec: OutputSpec, template_tokens: Sequence[str], steps: list[OutputStep], flags: list[OutputFlag]
) -> Body:
    """Project, table, and rows for the page; the text as it is where it is no JSON."""
    try:
        value = _read(body.text, spec, template_tokens)
    except CannotRead as error:
        # Paging alone is for text as well.
        flags += [error.flag] if spec.projection is not None or spec.table is not None else []
        return body
    if spec.projection is not None:
        projected, found = project(value, spec.projection)
        flags += found
        # Projected or not, JSON that stays the same stays as the tool wrote it.
        body = body if projected == value else Body(text=compact(projected))
        value = projected
        _log(steps, "project", body.text)
    rows = find_rows(value)
    table = as_table(rows, spec.table) if rows is not None and spec.table is not None else None
    if spec.table is not None:
        body = table or body
        _log(steps, "table", body.text)
    if table is None and rows is not None and spec.page_rows is not None and len(rows.rows) > spec.page_rows:
        body = as_lines(rows)
    # Cells and fields that were clean one by one may spell a template token side by side.
    text = clean(body.text, template_tokens)[0] if spec.strip else body.text
    return body if text == body.text else Body(text=text)


def _read(text: str, spec: OutputSpec, template_tokens: Sequence[str]) -> Any:
    """The JSON value, clean: an escape such as `\\u003c` may hide what the text as a whole does not show."""
    value = read_json(text)

    def unescaped(part: str) -> str:
        part = part.encode(errors="replace").decode()  # `\\ud800` makes a lone surrogate
        return clean(part, template_tokens)[0] if spec.strip else part

    return map_strings(value, unescaped) if "\\" in text else value


def _fit(body: Body, end: int, spec: OutputSpec, limit: int, count: Count, output_id: str) -> tuple[Fit, bool]:
    """What fits, and whether its marker says how to get the rest."""
    window = (body.header_chars, end)
    short = short_mark(body)
    if not spec.has_full_marker:
        return fit(body, window, limit=limit, count=count, keep=spec.keep, mark=short, snap=False), False

    def is_whole(where: Window) -> bool:
        # What the transport left out is in no page.
        return where.shown_chars == len(body.text) - where.start

    def how(where: Window) -> str:
        if not spec.offload or is_whole(where):
            return spec.hint or NARROW
        more = call_for_more(output_id, where.head_end)
        return f"{spec.hint} {more}" if spec.hint else more

    mark = full_mark(body, how, tokens=(count, total_tokens(body.text, limit, count)))
    found = fit(body, window, limit=limit, count=count, keep=spec.keep, mark=mark, snap=True)
    if found.window.shown_chars:
        return found, not is_whole(found.window)
    # The full marker alone takes the limit: better a little of the output.
    return fit(body, window, limit=limit, count=count, keep=spec.keep, mark=short, snap=False), False


def _body(carried: Carried, text: str) -> Body:
    if not carried.unseen_chars:
        return Body(text=text)
    return Body(text=text, unseen_chars=carried.unseen_chars - len(carried.hole), is_marked=bool(carried.hole))


def _shaped(
    text: str, carried: Carried, steps: list[OutputStep], flags: list[OutputFlag], kept_id: str | None = None
) -> ShapedOutput:
    _log(steps, "truncate", text)
    unique = tuple(dict.fromkeys(flags))
    return ShapedOutput(text=text, bytes_in=carried.bytes_in, steps=tuple(steps), flags=unique, kept_id=kept_id)


def _log(steps: list[OutputStep], name: StepName, text: str) -> None:
    steps.append(OutputStep(name=name, bytes_in=steps[-1].bytes_out, bytes_out=_size(text)))


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
