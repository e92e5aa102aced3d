"""Preferences as rows: two of one unit for a pair, one for a rated conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentrft.data.preferences import Preference, Rated
from agentrft.errors import UserError
from agentrft.protocols import ChatFormat
from agentrft.train.demos import demonstration_row, rendered_replies, too_long
from agentrft.train.dpo_plan import PreferenceUnit
from agentrft.types import Message, Row, ToolSpec

_PARAM = "data.preferences"
# All rows share the system prompt, so the learner may keep similar ones side by side and compute what they share once.
_GROUP = "preferences"


def preference_units(
    preferences: Sequence[Preference | Rated],
    tools: Sequence[ToolSpec],
    chat_format: ChatFormat,
    *,
    max_tokens: int,
) -> list[PreferenceUnit]:
    """One unit a preference, in order; `tools` describe those of rows that describe none. Raises UserError."""
    pairs = [one for one in preferences if isinstance(one, Preference)]
    rated_R = [
        rated_row(one, one.demonstration.tools or tools, chat_format, max_tokens=max_tokens)
        for one in preferences
        if isinstance(one, Rated)
    ]
    mismatched_R = mismatched_rows(rated_R, max_tokens=max_tokens)
    return [
        PreferenceUnit(rows=pair_rows(pair, pair.tools or tools, chat_format, max_tokens=max_tokens)) for pair in pairs
    ] + [PreferenceUnit(rows=(row,), mismatched=other) for row, other in zip(rated_R, mismatched_R, strict=True)]


def pair_rows(
    preference: Preference, tools: Sequence[ToolSpec], chat_format: ChatFormat, *, max_tokens: int
) -> tuple[Row, Row]:
    """The preferred and the rejected row; replies are trained from the first token in which the rows differ.

    Before it both are the same and nothing is preferred; in the sigmoid loss such tokens would cancel anyway. Tool
    results are context. Raises UserError for an output that the format cannot write, that is the beginning of the
    other, or that is longer than `max_tokens` with its prompt.
    """
    prompt = chat_format.prompt(preference.prompt, tools)
    rendered = [
        _rendered(preference, name, messages, prompt, tools, chat_format, max_tokens)
        for name, messages in (("preferred", preference.preferred), ("rejected", preference.rejected))
    ]
    shared = _common_prefix(rendered[0][0], rendered[1][0])
    first, second = (
        Row(
            ids=ids,
            trained=[is_trained and position >= shared for position, is_trained in enumerate(trained)],
            log_probs=[0.0] * len(ids),
            credit=[0.0] * len(ids),
            unit=preference.id,
            group=_GROUP,
            sign=sign,
        )
        for (ids, trained), sign in zip(rendered, (1, -1), strict=True)
    )
    if not (any(first.trained) and any(second.trained)):
        raise UserError(
            f"Preference {preference.id!r} compares an output with its own beginning; expected two that differ in "
            "something the assistant wrote. Remove the row, or let both end in an answer.",
            param=_PARAM,
            code="bad_preference",
        )
    return first, second


def rated_row(rated: Rated, tools: Sequence[ToolSpec], chat_format: ChatFormat, *, max_tokens: int) -> Row:
    """The conversation as `demonstration_row` has it, with the sign of its rating; raises UserError as that does."""
    row = demonstration_row(rated.demonstration, tools, chat_format, max_tokens=max_tokens)
    return replace(row, sign=1 if rated.desirable else -1, group=_GROUP, credit=[0.0] * len(row.ids))


def mismatched_rows(rows_R: Sequence[Row], *, max_tokens: int) -> list[Row | None]:
    """For each row, its prompt with the answer of the next row that has another prompt and fits; None without one.

    What KTO's z₀ is measured on. The partner depends on the rows' order alone, so a figure made before training stays
    good in every step.
    """
    starts = [next(t for t, trained in enumerate(row.trained) if trained) for row in rows_R]
    prompts = [tuple(row.ids[:start]) for row, start in zip(rows_R, starts, strict=True)]
    result: list[Row | None] = []
    for index, (row, start) in enumerate(zip(rows_R, starts, strict=True)):
        others = ((index + offset) % len(rows_R) for offset in range(1, len(rows_R)))
        fitting = (
            other
            for other in others
            if prompts[other] != prompts[index] and start + len(rows_R[other].ids) - starts[other] <= max_tokens
        )
        partner = next(fitting, None)
        result.append(None if partner is None else _spliced(row, start, rows_R[partner], starts[partner]))
    return result


def _spliced(row: Row, start: int, other: Row, other_start: int) -> Row:
    ids = [*row.ids[:start], *other.ids[other_start:]]
    trained = [*row.trained[:start], *other.trained[other_start:]]
    zeros = [0.0] * len(ids)
    return replace(row, ids=ids, trained=trained, log_probs=zeros, credit=zeros)


def _rendered(
    preference: Preference,
    name: str,
    messages: Sequence[Message],
    prompt: Sequence[int],
    tools: Sequence[ToolSpec],
    chat_format: ChatFormat,
    max_tokens: int,
) -> tuple[list[int], list[bool]]:
    ids, trained = rendered_replies(messages, tools, chat_format)
    if len(prompt) + len(ids) > max_tokens:
        what = f"The {name} side of preference {preference.id!r}"
        raise too_long(what, len(prompt) + len(ids), max_tokens, param=_PARAM)
    return [*prompt, *ids], [*[False] * len(prompt), *trained]


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
