"""A document as its writer gave it, with the secrets in it masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentrft.net.secrets import MASK


def shown(given: Any, dumped: Any) -> Any:
    """`given` with a mask wherever `dumped`, the same document after reading and dumping, has one.

    Which values are secrets only their specs know; the keys and the values shown are those that the user wrote.
    """
    if isinstance(given, Mapping) and isinstance(dumped, Mapping):
        return {key: shown(value, dumped.get(key)) for key, value in given.items()}
    if isinstance(given, list | tuple) and isinstance(dumped, list | tuple) and len(given) == len(dumped):
        return [shown(one, other) for one, other in zip(given, dumped, strict=True)]
    return MASK if dumped == MASK else given
