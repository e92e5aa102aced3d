"""shopdb: what the tool refuses, the grader's numbers, its hacks, and how good the best policy is."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

ROW: dict[str, Any] = {
    "id": "row-1",
    "messages": [{"role": "user", "content": "How many orders did ana make?"}],
    "answer": "3",
    "answer_without": "1",
    "without": {"orders": ["1", "3"]},
    "sql": "SELECT count(*) FROM orders WHERE customer = 'ana'",
    "tables": {
        "customers": "id,name,city\n1,ana,oslo\n2,ben,lima",
        "orders": "id,customer,qty\n1,ana,2\n2,ben,3\n3,ana,5\n4,ana,7",
    },
}
RIGHT = ("sql", {"query": ROW["sql"]})
LOOK = ("sql", {"query": "SELECT * FROM orders LIMIT 1"})


def sql(query: str) -> tuple[str, dict[str, str]]:
    return "sql", {"query": query}


@pytest.fixture(scope="module")
def shopdb(open_example: Any) -> Any:
    return open_example("shopdb")


@pytest.mark.parametrize(
    ("query", "output"),
    [
        (ROW["sql"], "3"),
        ("select name, city from customers where id = 1;", "ana | oslo"),
        ("SELECT avg(qty), sum(qty) FROM orders", "4.25 | 17"),
        ("SELECT sum(qty) FROM orders WHERE customer = 'zoe'", "null"),
        ("SELECT * FROM orders WHERE customer = 'zoe'", "no rows"),
        ("SELECT a.id FROM orders a, orders b", "1\n1\n1\n1\n2\n2\n2\n2\n3\n3\n[6 more]"),
        ("SELECT 'a\nb'", "a b"),
        ("SELECT '" + "x" * 99 + "'", "x" * 40),
        ("WITH t AS (SELECT qty FROM orders) SELECT max(qty) FROM t", "7"),
        ("SELECT total FROM orders", "error: no such column: total"),
        ("SELECT * FROM items", "error: no such table: items"),
        ("SELEC 1", 'error: near "SELEC": syntax error'),
        ("", "error: only SELECT is allowed"),
        ("-- nothing", "error: only SELECT is allowed"),
    ],
)
async def test_queries(shopdb: Any, query: str, output: str) -> None:
    assert await shopdb.outputs(ROW, [sql(query)]) == [output]


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO orders VALUES (9, 'ana', 1)",
        "UPDATE orders SET qty = 0",
        "DELETE FROM orders",
        "REPLACE INTO orders VALUES (1, 'ana', 1)",
        "DROP TABLE orders",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "CREATE VIEW v AS SELECT 1",
        "ALTER TABLE orders RENAME TO o",
        "ATTACH DATABASE '/tmp/agentrft-shopdb-test.db' AS x",
        "ATTACH ':memory:' AS x",
        "DETACH main",
        "VACUUM INTO '/tmp/agentrft-shopdb-test.db'",
        "PRAGMA table_info(orders)",
        "PRAGMA journal_mode = OFF",
        "SELECT * FROM pragma_table_info('orders')",
        "SELECT sql FROM sqlite_master",
        "SELECT sql FROM sqlite_schema",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT a",
        "ANALYZE",
        "REINDEX",
        "SELECT load_extension('x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT randomblob(1000000000)",
        "SELECT hex(zeroblob(1000000000))",
        "SELECT printf('%1000000000d', 1)",
        "SELECT 1; SELECT 2",
        "SELECT 1; DELETE FROM orders",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT a\0b",
        "SELECT '\ud800'",
        "SELECT " + "1 + " * 400 + "1",
    ],
)
async def test_everything_but_reading_is_refused(shopdb: Any, query: str) -> None:
    outputs = await shopdb.outputs(ROW, [sql(query), sql("SELECT count(*), sum(qty) FROM orders")])
    assert outputs[0].startswith("error: "), outputs[0]
    assert "\n" not in outputs[0]
    assert outputs[1] == "4 | 17"


async def test_long_loops_and_large_values_end_soon(shopdb: Any) -> None:
    start = time.perf_counter()
    tables = ", ".join(f"orders o{n}" for n in range(12))  # 4 ** 12 = 17 million rows
    outputs = await shopdb.outputs(
        ROW,
        [
            sql(f"SELECT count(*) FROM {tables}"),
            sql(f"SELECT o0.id FROM {tables}"),
            sql("SELECT count(*) FROM orders"),  # the budget is each query's own
            sql("SELECT replace('" + "x" * 90 + "', 'x', 'yyyyyyyyyyyyyyyyyy')"),
        ],
    )
    assert outputs[:3] == ["error: the query takes too long"] * 2 + ["4"]
    assert outputs[3].startswith("error: ")
    assert time.perf_counter() - start < 5


async def test_episodes_do_not_share_a_database(shopdb: Any) -> None:
    other = ROW | {"tables": {"orders": "id,customer,qty\n1,zoe,9"}}
    assert await shopdb.outputs(other, [sql("SELECT * FROM orders")]) == ["1 | zoe | 9"]
    assert await shopdb.outputs(ROW, [sql("SELECT count(*) FROM orders")]) == ["4"]


async def test_the_stated_rewards(shopdb: Any) -> None:
    # quality × (1 − 0.15 × (calls − 1)), quality = 0.5 × query + 0.5 × answer
    assert await shopdb.score(ROW, [RIGHT], "3") == 1.0
    assert await shopdb.score(ROW, [RIGHT], "Answer: 3.0") == 1.0
    assert await shopdb.score(ROW, [LOOK, RIGHT], "3") == pytest.approx(0.85)
    assert await shopdb.score(ROW, [LOOK, LOOK, RIGHT], "3") == pytest.approx(0.7)
    assert await shopdb.score(ROW, [RIGHT], "4") == 0.5
    # a column too much: the F1 of {ana, 3} against {3} is 2/3 on both databases
    wide = sql("SELECT customer, count(*) FROM orders WHERE customer = 'ana'")
    assert await shopdb.score(ROW, [wide], "3") == pytest.approx(0.5 * 2 / 3 + 0.5)
    assert await shopdb.score(ROW, [RIGHT], "") == 0.0
    assert await shopdb.score(ROW, [RIGHT], None) == 0.0
    assert await shopdb.score(ROW, [], "3") == 0.0


async def test_the_last_query_that_worked_counts(shopdb: Any) -> None:
    broken = sql("SELECT nothing FROM nowhere")
    assert await shopdb.score(ROW, [RIGHT, broken], "3") == pytest.approx(0.85)
    # {1, ana, 2} has nothing of {3}: the answer stands in a result, the query does not count
    assert await shopdb.score(ROW, [RIGHT, LOOK], "3") == pytest.approx(0.5 * 0.85)
    assert await shopdb.score(ROW, [broken], "3") == 0.0


async def test_a_query_that_was_told_its_result_earns_half(shopdb: Any) -> None:
    for query in (
        "SELECT 3",
        "SELECT 3 FROM orders LIMIT 1",
        "SELECT max(qty) - max(qty) + 3 FROM orders",
        "SELECT count(*) FROM customers WHERE 1 UNION SELECT 3 LIMIT 1 OFFSET 1",
    ):
        assert await shopdb.score(ROW, [sql(query)], "3") == pytest.approx(0.75), query
        assert await shopdb.score(ROW, [sql(query.replace("3", "2"))], "2") <= 0.5, query  # a wrong guess


async def test_two_queries_in_place_of_a_join_are_right_on_both_databases(shopdb: Any) -> None:
    row = ROW | {"sql": "SELECT count(*) FROM orders JOIN customers ON customer = name WHERE city = 'oslo'"}
    first, then = (
        sql("SELECT name FROM customers WHERE city = 'oslo'"),
        sql("SELECT count(*) FROM orders WHERE customer IN ('ana')"),
    )
    assert await shopdb.score(row, [sql(row["sql"])], "3") == 1.0
    assert await shopdb.score(row, [first, then], "3") == pytest.approx(0.85)


@pytest.mark.parametrize("answer", ["1 2 3", "3 or 4", "three", "ana made 3 orders", "Answer: Answer: 3", "3!", "３"])
async def test_only_the_value_itself_is_an_answer(shopdb: Any, answer: str) -> None:
    assert await shopdb.score(ROW, [RIGHT], answer) == 0.5


async def test_values_in_errors_and_in_the_models_words_are_no_evidence(shopdb: Any) -> None:
    assert await shopdb.score(ROW, [sql("SELECT 3 FROM 3")], "3") == 0.0
    sample = await shopdb.play(ROW, [], "3")
    said = {"role": "assistant", "content": "3"}
    assert shopdb.grade(sample | {"messages": [*sample["messages"], said]}, ROW) == 0.0


async def test_malformed_replies_count_as_calls(shopdb: Any) -> None:
    sample = await shopdb.play(ROW, [RIGHT], "3")
    assert shopdb.grade(sample | {"n_calls": 2}, ROW) == pytest.approx(0.85)
    assert shopdb.grade(sample | {"n_calls": 99}, ROW) == 0.0


@pytest.mark.parametrize("split", ["train", "validation", "test", "harder"])
async def test_the_best_policy_needs_one_query_and_earns_one(shopdb: Any, split: str) -> None:
    for row in shopdb.splits[split][:60]:
        (output,) = await shopdb.outputs(row, [sql(row["sql"])])
        assert output == row["answer"]
        assert await shopdb.score(row, [sql(row["sql"])], output) == 1.0, row["id"]


async def test_looking_and_guessing_earns_little(shopdb: Any) -> None:
    """Echoing a value through the tool, with the answers of other rows as guesses."""
    rows = shopdb.splits["test"]
    total = 0.0
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        total += await shopdb.score(row, [sql(f"SELECT '{other['answer']}'")], other["answer"])
    assert total / len(rows) < 0.1


def test_names_of_the_harder_split_are_unseen(shopdb: Any) -> None:
    def words(split: str) -> set[str]:
        rows = shopdb.splits[split]
        headers = {name for row in rows for text in row["tables"].values() for name in text.split("\n")[0].split(",")}
        return headers | {table for row in rows for table in row["tables"]}

    assert words("train") & words("harder") == {"id"}
    assert any(row["sql"].count("JOIN") == 2 for row in shopdb.splits["harder"])
    assert not any(row["sql"].count("JOIN") == 2 for row in shopdb.splits["train"])


def test_demonstrated_skills(shopdb: Any) -> None:
    queries = [
        [
            json.loads(call["function"]["arguments"])["query"]
            for m in d["messages"]
            for call in m.get("tool_calls") or []
        ]
        for d in shopdb.rows("demonstrations")
    ]
    direct = [made for made in queries if len(made) == 1]
    assert 0.1 < len(direct) / len(queries) < 0.25
    last = " ".join(made[-1] for made in queries)
    for words in (
        "JOIN customers",
        "JOIN products",
        "BETWEEN",
        "GROUP BY product",
        "max(day)",
        " IN ('",
        "count(*)",
        "sum(",
    ):
        assert words in last, words
    assert max(map(len, queries)) == 3
