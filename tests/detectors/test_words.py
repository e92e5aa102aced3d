"""What error texts say, in several languages, and what only looks like one."""

from __future__ import annotations

import pytest

from agentrft.detectors.words import is_about_arguments, is_cut, is_not_found, is_outage, is_timeout, reads_like_error


@pytest.mark.parametrize(
    "text",
    [
        "error: no such file",
        "Error 503: Service Unavailable",
        "HTTP/1.1 404 Not Found",
        "ValueError: bad",
        "java.net.SocketException: Connection reset",
        "Fehler: ungültig",
        "错误：无效的参数",
        "エラー: 見つかりません",
        "Ошибка: не найдено",
        '{"error": "quota exceeded"}',
        '{"ok": false, "message": "no"}',
        '{"status": 500}',
        'Traceback (most recent call last):\n  File "a.py"\nKeyError: 3',
    ],
)
def test_errors(text: str) -> None:
    assert reads_like_error(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ok",
        '{"error": null, "name": "Ana"}',
        '{"errors": [], "rows": [1]}',
        '{"status": "failed", "order": "A-1", "total": 3}',
        '{"error_rate": 0.2}',
        "2026-01-01 ERROR disk full\n2026-01-01 INFO ok",
        "Errors are described in chapter 5",
        "500 grams of flour",
        "last error: none",
        "the exception proves the rule",
        "Failure is an orphan",
    ],
)
def test_data(text: str) -> None:
    assert not reads_like_error(text)


@pytest.mark.parametrize(
    "text",
    [
        "connection refused",
        "错误：服务不可用",
        "Erreur interne du serveur",
        "内部服务器错误",
        "error: rate limit exceeded",
    ],
)
def test_outages(text: str) -> None:
    assert is_outage(text)


def test_kinds_of_errors_are_kept_apart() -> None:
    assert is_timeout("error: deadline exceeded")
    assert not is_timeout("error: timeout must be a number")
    assert is_not_found("Fehler: Kunde nicht gefunden")
    assert is_about_arguments("error: day must be YYYY-MM-DD")
    assert not is_about_arguments("error: the balance does not cover this")
    assert not is_outage("error: refunds above 500 need approval")


@pytest.mark.parametrize(
    "text",
    [
        "a\n[812 characters left out]",
        "a\n[2 more]",
        "x (output truncated)",
        '{"rows": [{"id": 1, "name": "Ana"}, {"id": 2, "na',
    ],
)
def test_cuts(text: str) -> None:
    assert is_cut(text)


@pytest.mark.parametrize(
    "text", ["one more", "…", '{"rows": [1, 2]}', "the file is 812 characters long", "[see more]", "show more results"]
)
def test_what_is_whole(text: str) -> None:
    assert not is_cut(text)
