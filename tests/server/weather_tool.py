"""The function that the tests of the Responses API offer."""

from __future__ import annotations

from typing import Any

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Weather of a town.",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
    "strict": False,
}
