"""Settings under `agent.outputs`."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agentrft.tools.output import OutputSpec, output_spec_for


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"pages": 3}, "Extra inputs"),
        ({"project": {}}, "changes nothing"),
        ({"project": {"keep": [""]}}, "at least 1 character"),
        ({"profile": "concise"}, "profiles has none"),
        ({"profile": "a", "profiles": {"a": {"drop": ["x"]}}, "project": {"drop": ["y"]}}, "keep one of them"),
        ({"page_rows": 5, "keep": "tail"}, "page_rows shows the first rows"),
        ({"marker": "short", "offload": True}, "marker is 'short'"),
        ({"marker": "short", "hint": "x"}, "marker is 'short'"),
        ({"hint": "two\nlines"}, "match pattern"),
        ({"max_tokens": 15}, "greater than or equal to 16"),
        ({"page_rows": 0}, "greater than or equal to 1"),
        ({"table": "toon"}, "'csv' or 'markdown'"),
    ],
)
def test_what_has_no_effect_or_no_meaning_is_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OutputSpec.model_validate(document)


def test_a_profile_is_picked_by_name_and_settings_survive_json() -> None:
    document = {"profiles": {"concise": {"keep": ["id", ["a.b", "*"]]}, "detailed": {"drop_empty": True}}}
    spec = OutputSpec.model_validate({**document, "profile": "concise"})
    assert spec.projection == spec.profiles["concise"]
    assert OutputSpec.model_validate(document).projection is None
    assert OutputSpec.model_validate_json(spec.model_dump_json()) == spec


def test_the_most_specific_glob_wins_whatever_the_order() -> None:
    specs = {glob: OutputSpec(max_tokens=100 + n) for n, glob in enumerate(["*", "search_*", "*_users", "get_order"])}
    for outputs in (specs, dict(reversed(specs.items()))):
        found = [output_spec_for(name, outputs).max_tokens for name in ("ls", "search_users", "search_x", "get_order")]
        # `search_users`: `search_*` has 7 characters of its own, `*_users` 6.
        assert found == [100, 101, 101, 103]
    assert output_spec_for("ls", {"search_*": OutputSpec(max_tokens=99)}) == OutputSpec()


def test_pages_of_read_output_are_shaped_already() -> None:
    assert output_spec_for("read_output", {"*": OutputSpec(page_rows=1)}) == OutputSpec()
