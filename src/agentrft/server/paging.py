"""Pages of a list, as OpenAI's clients walk them: `after` is the id that the page before ended with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

T = TypeVar("T")


class ListPage(BaseModel, Generic[T]):
    """One page; use as response model: `ListPage[FileObject]`."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None


def list_page(data: Sequence[Any], has_more: bool) -> dict[str, Any]:
    """The page that holds these objects (dicts, or models with an `id`), in this order."""
    ids = [entry["id"] if isinstance(entry, dict) else entry.id for entry in data]
    return {
        "object": "list",
        "data": list(data),
        "has_more": has_more,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
    }
