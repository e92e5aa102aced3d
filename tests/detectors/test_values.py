"""Values in texts: equality, presence, ids, forms."""

from __future__ import annotations

import pytest

from agentrft.detectors.values import is_id, is_same_value, is_specific, shape, shows


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("memory = 30G", "30G"),
        ("価格は1200円です", "1200"),
        ("The answer is “Oslo”.", "oslo"),
        ("total: 1,200", "1,200"),
        ("x = 3.5;", "3.5"),
        ("ＯＲＤ－７ is here", "ord-7"),  # full-width letters, as NFKC reads them
        ("주문은 A-77입니다", "A-77"),
        ("a/b/prod.conf: port = 80", "80"),
    ],
)
def test_a_value_is_found_as_a_word_of_its_own(text: str, value: str) -> None:
    assert shows(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("port 13100", "3100"),
        ("x = 3.5", "3"),
        ("1,200", "200"),
        ("P27", "P2"),
        ("reopened", "open"),
        ("", "a"),
        ("a", ""),
    ],
)
def test_a_part_of_a_longer_word_or_number_is_no_value(text: str, value: str) -> None:
    assert not shows(text, value)


def test_equal_values_are_written_in_many_ways() -> None:
    assert is_same_value(" '1,200.0' ", "1200")
    assert is_same_value("OSLO.", "oslo")
    assert not is_same_value("12", "21")


@pytest.mark.parametrize(
    "value", ["ORD-1234", "P27", "usr_981", "db-01", "12345", "9f1c2d3e-0000-4000-8000-0123456789ab"]
)
def test_ids(value: str) -> None:
    assert is_id(value)


@pytest.mark.parametrize(
    "value",
    ["2026-03-14", "3/14/25", "12:30", "49.99", "25kg", "v2.1.0", "1234", "oslo", "two words 22", "hello", "3.5 km"],
)
def test_dates_amounts_and_words_are_no_ids(value: str) -> None:
    assert not is_id(value)


def test_what_stands_everywhere_is_not_specific() -> None:
    assert [value for value in ("7", "no", "true", "30G", "東京", "oslo") if is_specific(value)] == [
        "30G",
        "東京",
        "oslo",
    ]


def test_the_form_of_a_date_tells_formats_apart() -> None:
    assert shape("2025-03-14") == "9999-99-99" != shape("3/14/25") == "9/99/99"
    assert shape("ORD-123456") == shape("usr-9999") == "a-9999"
