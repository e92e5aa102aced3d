"""The grader of shopdb: a number in [0, 1] for one episode, from the query that was run and what it showed.

    reward  = quality × (1 − 0.15 × (calls − 1))
    quality = 0.5 × query + 0.5 × answer

    query   F1 between the values that the last successful query gives and the one value asked for, averaged over the
            row's database and the same database with some rows taken out
    answer  1 if the answer is right and stands in a tool result, else 0

The second database is what makes `SELECT 7` worth little: a query that was told its result fails there, a query that
finds it does not. A query with values copied from an earlier result (`WHERE price = 95` after asking for the highest
price) may fail there too and then earns half, the price of not being one query. Calls cost in proportion to quality.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter

CALL_COST = 0.15
_MAX_INSTRUCTIONS = 1_000_000
_MAX_ROWS = 200
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")


def grade(sample: dict, item: dict) -> float:
    """The reward of one episode on one row."""
    answer = (sample.get("output_text") or "").strip().removeprefix("Answer:").strip()
    if sample.get("stop_reason", "answered") != "answered" or not answer:
        return 0.0
    shown = {cell for output in _outputs(sample).values() for cell in _cells(output)}
    is_right = _norm(answer) == _norm(item["answer"]) and _norm(answer) in shown
    quality = 0.5 * _query_quality(_last_query(sample), item) + 0.5 * is_right
    return max(0.0, quality * (1 - CALL_COST * max(0, _calls(sample) - 1)))


def _query_quality(query: str | None, item: dict) -> float:
    if query is None:
        return 0.0
    whole = _f1(_run(query, item["tables"], {}), [item["answer"]])
    expected = [] if item["answer_without"] is None else [item["answer_without"]]
    return (whole + _f1(_run(query, item["tables"], item["without"]), expected)) / 2


def _f1(given: list[str] | None, expected: list[str]) -> float:
    """Of two multisets of values; two empty ones are equal. None is a query that failed."""
    if given is None:
        return 0.0
    if not given and not expected:
        return 1.0
    common = sum((Counter(given) & Counter(map(_norm, expected))).values())
    return 2 * common / (len(given) + len(expected))


def _outputs(sample: dict) -> dict[str, str]:
    """Tool results by the id of their call, errors left out: those repeat the model's own words."""
    results = [message for message in sample.get("messages") or [] if message.get("role") == "tool"]
    found = {str(message.get("tool_call_id")): message.get("content") or "" for message in results}
    return {call_id: output for call_id, output in found.items() if not output.startswith("error:")}


def _last_query(sample: dict) -> str | None:
    """The query behind the last result that was no error."""
    succeeded = _outputs(sample)
    query = None
    for message in sample.get("messages") or []:
        for call in message.get("tool_calls") or []:
            function = call.get("function") or {}
            if call.get("id") in succeeded and function.get("name") == "sql":
                query = json.loads(function["arguments"])["query"]
    return query


def _cells(output: str) -> list[str]:
    return [_norm(cell) for line in output.split("\n") for cell in line.split(" | ")]


def _norm(value: object) -> str:
    """Text to compare: 3, 3.0 and `3` are the same, and so are `Oslo` and `oslo`."""
    if value is None:
        return "null"
    text = str(value).strip().casefold()
    return f"{float(text):.6g}" if _NUMBER.fullmatch(text) else text


def _run(query: str, tables: dict[str, str], without: dict[str, list[str]]) -> list[str] | None:
    """Every value the query gives on the tables less the rows (by first column) in `without`; None when it fails."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for table, text in tables.items():
            header, *rows = [line.split(",") for line in text.split("\n")]
            kinds = ["INTEGER" if all(row[n].isdecimal() for row in rows) else "TEXT" for n in range(len(header))]
            columns = ", ".join(f"{name} {kind}" for name, kind in zip(header, kinds, strict=True))
            kept = [row for row in rows if row[0] not in without.get(table, [])]
            connection.execute(f"CREATE TABLE {table} ({columns})")
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(header))})", kept)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
        # The tool refused everything but reading before this query could succeed; here it only has to end.
        connection.execute("PRAGMA query_only = 1")
        connection.set_progress_handler(lambda: True, _MAX_INSTRUCTIONS)
        return [_norm(value) for row in connection.execute(query).fetchmany(_MAX_ROWS) for value in row]
    except (sqlite3.Error, sqlite3.Warning):
        return None
    finally:
        connection.close()


def _calls(sample: dict) -> int:
    made = sum(len(message.get("tool_calls") or []) for message in sample.get("messages") or [])
    return max(made, sample.get("n_calls") or 0)
