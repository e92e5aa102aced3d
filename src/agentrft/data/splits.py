"""Splits that do not leak: rows of equal content never fall on both sides."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from agentrft.errors import UserError
from agentrft.types import Item

_TRAINING = "train"


def content_hash(item: Item) -> str:
    """SHA-256 (hex) of what makes the task: messages and fields, not id, line or tools.

    Text is compared after Unicode normalisation (NFC) with white space collapsed.
    """
    task = {"messages": [[m.role, m.content] for m in item.messages], "fields": dict(item.fields)}
    text = json.dumps(_canonical(task), sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def split_items(items: Sequence[Item], fractions: Mapping[str, float], seed: int) -> dict[str, list[Item]]:
    """`items` dealt into named splits by `fractions` (they add up to 1), in their original order within each.

    The same items and seed give the same splits whatever their order, and rows of equal content stay together. Raises
    UserError when the fractions are not positive, do not add up, or there are fewer distinct rows than splits.
    """
    if any(share <= 0 for share in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-9:
        raise UserError(
            f"cannot split by {dict(fractions)}; expected positive fractions that add up to 1; next step: for example "
            '{"train": 0.8, "test": 0.2}',
            param="fractions",
            code="invalid_split",
        )
    hashes = [content_hash(item) for item in items]
    order = sorted(set(hashes), key=lambda digest: hashlib.sha256(f"{seed}:{digest}".encode()).digest())
    if len(order) < len(fractions):
        raise UserError(
            f"cannot split {len(order)} distinct rows into {len(fractions)} parts; expected one row a part at least; "
            "next step: add rows",
            param="data",
            code="too_few_rows",
        )
    side: dict[str, str] = {}
    edge, start = 0.0, 0
    for k, (name, share) in enumerate(fractions.items()):
        edge += share
        left = len(fractions) - k - 1
        end = len(order) - left if left == 0 else min(max(round(edge * len(order)), start + 1), len(order) - left)
        side.update(dict.fromkeys(order[start:end], name))
        start = end
    return {name: [i for i, digest in zip(items, hashes, strict=True) if side[digest] == name] for name in fractions}


def check_overlap(splits: Mapping[str, Sequence[Item]]) -> list[str]:
    """Warnings about rows that two held-out splits share; raises UserError where one shares rows with `train`.

    A held-out figure over rows that were trained on says nothing.
    """
    warnings: list[str] = []
    lines = {name: {content_hash(item): item.line for item in items} for name, items in splits.items()}
    names = list(splits)
    for k, one in enumerate(names):
        for other in names[k + 1 :]:
            shared = [digest for digest in lines[one] if digest in lines[other]]
            if not shared:
                continue
            example = f"line {lines[one][shared[0]]} of {one} is line {lines[other][shared[0]]} of {other}"
            message = f"{one} and {other} share {len(shared)} row(s): {example}"
            if _TRAINING not in (one, other):
                warnings.append(message)
                continue
            held_out = other if one == _TRAINING else one
            raise UserError(
                f"{message}; expected none, because figures on {held_out} would be over trained rows; next step: "
                "remove them from one of the two files",
                param=f"data.{held_out}",
                code="overlapping_splits",
            )
    return warnings


def _canonical(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(unicodedata.normalize("NFC", value).split())
    if isinstance(value, Mapping):
        return {str(key): _canonical(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(entry) for entry in value]
    return value
