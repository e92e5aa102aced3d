"""What a `Retry-After` header asks for."""

from __future__ import annotations

import pytest

from agentrft.clock import retry_after_s

NOW = 1_445_412_420.0  # Wed, 21 Oct 2015 07:27:00 GMT


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("0.25", 0.25),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 60.0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),  # past
        (None, None),
        ("", None),
        ("-3", None),
        ("nan", None),
        ("1e9", None),
        ("9" * 400, None),
        ("soon", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
    ],
)
def test_seconds_dates_and_nonsense(header, seconds):
    assert retry_after_s(header, NOW) == seconds
