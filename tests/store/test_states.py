"""Every step of a job's status that is legal, and no other."""

from __future__ import annotations

import itertools

import pytest

from agentrft.errors import UserError
from agentrft.store.states import FINAL, FOLLOWS, INITIAL, check_transition

LEGAL = {
    ("validating_files", "queued"),
    ("validating_files", "failed"),
    ("validating_files", "cancelled"),
    ("queued", "running"),
    ("queued", "paused"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "queued"),  # its process died, another takes over
    ("running", "paused"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("paused", "queued"),  # OpenAI's resume answers `queued`
    ("paused", "failed"),
    ("paused", "cancelled"),
}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(FOLLOWS, FOLLOWS)))
def test_every_pair_of_statuses(before: str, after: str) -> None:
    if (before, after) in LEGAL:
        check_transition("ftjob-a", before, after)
        return
    with pytest.raises(UserError, match=f"ftjob-a is {before}.*cannot become {after}") as caught:
        check_transition("ftjob-a", before, after)
    assert caught.value.code == "illegal_transition"
    if before in FINAL:
        assert "create a new job" in caught.value.message


def test_the_words_are_openais_and_paused() -> None:
    assert set(FOLLOWS) == {
        "validating_files",
        "queued",
        "running",
        "paused",
        "succeeded",
        "failed",
        "cancelled",
    }
    assert INITIAL in FOLLOWS
    assert {status for status, after in FOLLOWS.items() if not after} == FINAL


def test_a_word_that_is_no_status_is_a_bug() -> None:
    with pytest.raises(ValueError, match="'done' is not a job status; expected one of validating_files, queued"):
        check_transition("ftjob-a", "running", "done")
