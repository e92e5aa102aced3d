"""Values in a form that both databases, and JSON, take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def storable(text: str) -> str:
    """Text that both databases take: PostgreSQL refuses NUL, and neither takes half a surrogate pair."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def finite(value: Any) -> Any:
    """`value` with every NaN and infinity in it as None: JSON and the databases have no agreed way to write them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value
