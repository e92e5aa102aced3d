"""The tool of shopdb: read-only SQL over a small SQLite database that is built in memory from the row, per episode.

What a query cannot do: write, attach files, set pragmas, recurse, call functions beyond a short list, run long, or make
large values. It is not a sandbox for hostile programs; it only ever sees SQL.
"""

from __future__ import annotations

import sqlite3

MAX_ROWS = 10
MAX_CELL_CHARS = 40
MAX_INSTRUCTIONS = 200_000
"""Of SQLite's virtual machine per query; the questions need a few thousand."""
_STRIDE = 1000
_FUNCTIONS = frozenset(
    "abs avg coalesce count ifnull length like lower max min nullif round substr substring sum total upper".split()  # noqa: SIM905
)


class ShopDb:
    """The database of one episode."""

    def __init__(self, item: dict) -> None:
        self._connection = connect(item["tables"])
        self._strides = 0
        self._connection.set_progress_handler(self._is_over_budget, _STRIDE)

    def close(self) -> None:
        self._connection.close()

    def sql(self, query: str) -> str:
        """Run a SELECT."""
        self._strides = 0
        try:
            cursor = self._connection.execute(query)
            if cursor.description is None:
                raise ValueError("only SELECT is allowed")
            rows = cursor.fetchmany(MAX_ROWS)
            more = sum(1 for _ in cursor)
        except (sqlite3.Error, sqlite3.Warning) as error:
            # SQLite says only `interrupted` when the budget is spent
            message = "the query takes too long" if self._is_over_budget() else str(error)
            raise ValueError(message) from None
        lines = [" | ".join(_cell(value) for value in row) for row in rows]
        return "\n".join([*lines, *([f"[{more} more]"] if more else [])]) or "no rows"

    def _is_over_budget(self) -> bool:
        self._strides += 1
        return self._strides > MAX_INSTRUCTIONS // _STRIDE


def connect(tables: dict[str, str]) -> sqlite3.Connection:
    """A read-only database in memory; each table is CSV text with a header line, whole numbers become INTEGER."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for table, text in tables.items():
        header, *rows = [line.split(",") for line in text.split("\n")]
        kinds = ["INTEGER" if all(row[n].isdecimal() for row in rows) else "TEXT" for n in range(len(header))]
        columns = ", ".join(f"{name} {kind}" for name, kind in zip(header, kinds, strict=True))
        connection.execute(f"CREATE TABLE {table} ({columns})")
        connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(header))})", rows)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 1_000)
    connection.set_authorizer(_allow_reading)
    return connection


def _allow_reading(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_OK if (second or "").lower() in _FUNCTIONS else sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_READ:
        return sqlite3.SQLITE_DENY if (first or "").lower().startswith(("sqlite_", "pragma_")) else sqlite3.SQLITE_OK
    return sqlite3.SQLITE_OK if action == sqlite3.SQLITE_SELECT else sqlite3.SQLITE_DENY


def _cell(value: object) -> str:
    if value is None:
        return "null"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return " ".join(text.split())[:MAX_CELL_CHARS]
