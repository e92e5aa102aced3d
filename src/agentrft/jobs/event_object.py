"""A stored event as OpenAI's `fine_tuning.job.event`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def event_object(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event object of an event as `Store.list_events` gives it; `data` is null where there is none."""
    return {
        "id": event["id"],
        "object": "fine_tuning.job.event",
        "created_at": int(event["created_at"]),
        "level": event["level"],
        "message": event["message"],
        "type": event["type"],
        "data": event["data"],
    }
