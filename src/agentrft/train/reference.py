"""The reference of preference losses: what the policy thought of every row before the first step.

For a fresh adapter that is the model with its adapter off, bit for bit. For a job that starts from a trained adapter it
is that adapter, as DPO wants it, and still there is no second model: each row's log-probs are computed once, kept in
`reference.json`, and read back on resume, when the weights have moved on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from agentrft.errors import StoreFault, UserError
from agentrft.protocols import Learner
from agentrft.train.dpo_plan import PreferenceUnit
from agentrft.types import Row

_FORMAT = 1
_UNITS_AT_ONCE = 64
"""Fixed pieces in the order of the data, so that the same rows give the same bits whenever they are computed."""


async def with_reference(
    units: Sequence[PreferenceUnit], learner: Learner, path: Path, *, has_begun: bool
) -> list[PreferenceUnit]:
    """The units with `reference_log_probs` in all their rows; from the file where it is of the same rows.

    `has_begun` says that weights have been updated, so that nothing can be computed any more. Raises UserError then
    for rows that are not those of the file, and StoreFault for a file that is gone or damaged, or cannot be written.
    """
    digest = _digest(units)
    found = _read(path)
    if found is not None and found[0] == digest:
        return list(_filled(units, found[1]))
    if has_begun:
        raise _cannot_go_on(path, is_damaged=found is None)
    values = [
        [value for value, trained in zip(log_probs_T, row.trained, strict=True) if trained]
        for start in range(0, len(units), _UNITS_AT_ONCE)
        for row, log_probs_T in await _computed(units[start : start + _UNITS_AT_ONCE], learner)
    ]
    _write(path, digest, values)
    return list(_filled(units, values))


async def _computed(units: Sequence[PreferenceUnit], learner: Learner) -> list[tuple[Row, list[float]]]:
    rows = [row for unit in units for row in unit.all_rows]
    return list(zip(rows, await learner.log_probs(rows), strict=True))


def _filled(units: Sequence[PreferenceUnit], values: Sequence[Sequence[float]]) -> Iterator[PreferenceUnit]:
    """`values` are those of the trained tokens, row by row."""
    remaining = iter(values)
    for unit in units:
        rows = tuple(_with_values(row, next(remaining)) for row in unit.rows)
        mismatched = None if unit.mismatched is None else _with_values(unit.mismatched, next(remaining))
        yield replace(unit, rows=rows, mismatched=mismatched)


def _with_values(row: Row, values: Sequence[float]) -> Row:
    remaining = iter(values)
    return replace(row, reference_log_probs=[next(remaining) if trained else 0.0 for trained in row.trained])


def _digest(units: Sequence[PreferenceUnit]) -> str:
    digest = hashlib.sha256()
    for unit in units:
        for row in unit.all_rows:
            digest.update(json.dumps([list(row.ids), [int(trained) for trained in row.trained], row.sign]).encode())
    return digest.hexdigest()


def _read(path: Path) -> tuple[str, list[list[float]]] | None:
    """Digest of the rows and values; None for a file that is not there or not whole."""
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != _FORMAT or document["sha256"] != _sha256(document["log_probs"]):
            return None
        return document["rows"], document["log_probs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, digest: str, values: list[list[float]]) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    document = {"format": _FORMAT, "rows": digest, "sha256": _sha256(values), "log_probs": values}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise StoreFault(f"could not save {path}: {error}; free disk space, then resume the job") from error


def _sha256(values: list[list[float]]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _cannot_go_on(path: Path, *, is_damaged: bool) -> Exception:
    if is_damaged:
        return StoreFault(
            f"{path} is gone or damaged: it holds what the first weights thought of every row, which cannot be "
            "computed again; start the job anew"
        )
    return UserError(
        "The preferences are not those that this job began with; expected the same rows, model and chat format. Put "
        "the files back, or start a new job.",
        param="data.preferences",
        code="preferences_changed",
    )
