"""What a job may write under `guardrails`."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from agentrft.tools import Guardrails
from agentrft.tools.guardrails.access import rules_for


def test_durations_and_counts_have_units():
    rules = Guardrails.model_validate(
        {
            "tools": {"a": {"timeout": "500ms"}, "b": {"timeout": "2m"}},
            "budgets": {"result_tokens": "64k", "tool_seconds": "5m", "calls": None},
            "retries": {"backoff": ["0.5s", "4s"]},
        }
    )
    assert (rules.tools["a"].timeout, rules.tools["b"].timeout) == (0.5, 120.0)
    assert (rules.budgets.result_tokens, rules.budgets.tool_seconds, rules.budgets.calls) == (64_000, 300.0, None)
    assert rules.retries.backoff == (0.5, 4.0)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"modus": "off"}, "Extra inputs"),
        ({"budgets": {"calls": 0}}, "greater than or equal to 1"),
        ({"tools": {"a": {"deny_args": {"x": ["("]}}}}, "cannot be read"),
        ({"tools": {"a": {"args": {"x": {"pattern": "["}}}}}, "cannot be read"),
        ({"retries": {"backoff": [5, 1]}}, "swap them"),
        ({"loops": {"alternating": 2}}, "greater than or equal to 4"),
        ({"tools": {"a": {"timeout": "soon"}}}, "valid number"),
        ({"approver": "guards:ask"}, "pattern"),
    ],
)
def test_nonsense_is_refused(document, said):
    with pytest.raises(ValidationError, match=said):
        Guardrails.model_validate(document)


def test_a_stored_document_means_the_same():
    rules = Guardrails.model_validate({"tools": {"*": {"max_calls": 3, "polling": True}, "get": {"effect": "read"}}})
    stored = Guardrails.model_validate(rules.model_dump(mode="json"))
    assert stored == rules
    for guardrails in (rules, stored):
        merged = rules_for("get", guardrails)
        assert (merged.max_calls, merged.polling, merged.effect) == (3, True, "read")
