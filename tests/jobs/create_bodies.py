"""Create bodies for the tests of what is made of them: right ones, from which each test changes one thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.jobs.create_body import ApiJob

JobOf = Callable[..., ApiJob]

GRADER = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True}}
TOOL = {"name": "search", "server_url": "https://tools.example/search", "headers": {"Authorization": "Bearer s3cret"}}


def body(**changes: Any) -> dict[str, Any]:
    whole = {"model": "o4-mini", "training_file": "file-a", **changes}
    return {name: value for name, value in whole.items() if value != "absent"}


def rft(section: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    reinforcement = {"grader": GRADER, **(section or {})}
    method = {"type": "reinforcement", "reinforcement": reinforcement}
    return body(**{"validation_file": "file-b", "method": method, **changes})


def refused(job_of: JobOf, given: dict[str, Any], **rules: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        job_of(given, **rules)
    return caught.value
