"""Write shopdb's rows and demonstrations: `python generate.py --seed 0 --out data`.

The same seed gives the same bytes. Every row has a database of its own; no row is in two files, except that
demonstrations are of the last rows of `train.jsonl` (same `id`).
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

from tools import ShopDb

SHOP = {
    "customers": "customers",
    "name": "name",
    "city": "city",
    "products": "products",
    "label": "name",
    "price": "price",
    "orders": "orders",
    "customer": "customer",
    "product": "product",
    "qty": "qty",
    "day": "day",
}
OTHER_SHOPS = [
    {
        "customers": "members",
        "name": "person",
        "city": "town",
        "products": "goods",
        "label": "title",
        "price": "cost",
        "orders": "sales",
        "customer": "buyer",
        "product": "good",
        "qty": "pieces",
        "day": "date",
    },
    {
        "customers": "readers",
        "name": "reader",
        "city": "village",
        "products": "books",
        "label": "title",
        "price": "fee",
        "orders": "loans",
        "customer": "who",
        "product": "book",
        "qty": "copies",
        "day": "week",
    },
]
PEOPLE = ["ana", "ben", "carla", "dora", "emil", "fay", "gus", "hana", "ivan", "kim", "lena", "mia", "nils", "omar"]
PRODUCTS = ["lamp", "chair", "desk", "mug", "clock", "rug", "bowl", "tray", "mirror", "shelf", "stool", "vase"]
CITIES = ["oslo", "paris", "lima", "cairo", "delhi", "dublin", "seoul", "tokyo"]
SPLITS = {"train": 600, "validation": 150, "test": 150, "harder": 100}
DEMONSTRATIONS = 256


@dataclass(frozen=True)
class Template:
    """A kind of question; braces are names of tables and columns, `c p t n a b` the values asked about."""

    text: str
    sql: str
    table: str
    """Rows of this table are taken out to make the second database."""
    look_at: tuple[str, ...]
    """What a demonstration looks at first."""
    scores: str = ""
    """The values that the question takes the best of: the first two must differ."""
    first: str = ""
    """For the way in two queries: this one's values go into `then`."""
    then: str = ""


TEMPLATES = [
    Template(
        "In which {city} does {c} live?",
        "SELECT {city} FROM {customers} WHERE {name} = '{c}'",
        "customers",
        ("customers",),
    ),
    Template(
        "What is the {price} of {p}?", "SELECT {price} FROM {products} WHERE {label} = '{p}'", "products", ("products",)
    ),
    Template(
        "How many {customers} live in {t}?",
        "SELECT count(*) FROM {customers} WHERE {city} = '{t}'",
        "customers",
        ("customers",),
    ),
    Template(
        "How many {products} have a {price} above {n}?",
        "SELECT count(*) FROM {products} WHERE {price} > {n}",
        "products",
        ("products",),
    ),
    Template(
        "Which {product} has the lowest {price}?",
        "SELECT {label} FROM {products} ORDER BY {price} LIMIT 1",
        "products",
        ("products",),
    ),
    Template(
        "How many {orders} did {c} make?",
        "SELECT count(*) FROM {orders} WHERE {customer} = '{c}'",
        "orders",
        ("orders",),
    ),
    Template(
        "What is the total {qty} of {p}?",
        "SELECT sum({qty}) FROM {orders} WHERE {product} = '{p}'",
        "orders",
        ("orders", "products"),
    ),
    Template(
        "What is the total {qty} of {p} for {c}?",
        "SELECT sum({qty}) FROM {orders} WHERE {product} = '{p}' AND {customer} = '{c}'",
        "orders",
        ("orders", "customers"),
    ),
    Template(
        "How many {orders} were made from {day} {a} to {b}?",
        "SELECT count(*) FROM {orders} WHERE {day} BETWEEN {a} AND {b}",
        "orders",
        ("orders",),
    ),
    Template(
        "Which {product} has the highest total {qty}?",
        "SELECT {product} FROM {orders} GROUP BY {product} ORDER BY sum({qty}) DESC LIMIT 1",
        "orders",
        ("orders", "products"),
        scores="SELECT sum({qty}) FROM {orders} GROUP BY {product} ORDER BY 1 DESC LIMIT 2",
    ),
    Template(
        "Which {customer} made the most {orders}?",
        "SELECT {customer} FROM {orders} GROUP BY {customer} ORDER BY count(*) DESC LIMIT 1",
        "orders",
        ("orders", "customers"),
        scores="SELECT count(*) FROM {orders} GROUP BY {customer} ORDER BY 1 DESC LIMIT 2",
    ),
    Template(
        "On which {day} did {c} order last?",
        "SELECT max({day}) FROM {orders} WHERE {customer} = '{c}'",
        "orders",
        ("orders",),
    ),
    Template(
        "How many {orders} came from {t}?",
        "SELECT count(*) FROM {orders} JOIN {customers} ON {customer} = {name} WHERE {city} = '{t}'",
        "orders",
        ("orders",),
        first="SELECT {name} FROM {customers} WHERE {city} = '{t}'",
        then="SELECT count(*) FROM {orders} WHERE {customer} IN ({found})",
    ),
    Template(
        "What did {c} pay in all?",
        "SELECT sum({qty} * {price}) FROM {orders} JOIN {products} ON {product} = {label} WHERE {customer} = '{c}'",
        "orders",
        ("orders", "products"),
    ),
]
HARDER_TEMPLATES = [
    *TEMPLATES,
    Template(
        "What did {customers} in {t} pay in all?",
        "SELECT sum({qty} * {price}) FROM {orders} JOIN {customers} ON {customer} = {customers}.{name} "
        "JOIN {products} ON {product} = {products}.{label} WHERE {city} = '{t}'",
        "orders",
        ("orders", "products"),
    ),
]


def make_tables(rng: random.Random, names: dict[str, str]) -> dict[str, str]:
    """Three small tables as CSV text: 6 people in 3 places, 6 products, 14 orders."""
    people, products, cities = rng.sample(PEOPLE, 6), rng.sample(PRODUCTS, 6), rng.sample(CITIES, 3)
    prices = rng.sample(range(5, 99), 6)
    buys = [[rng.choice(people), rng.choice(products), rng.randrange(1, 10), rng.randrange(1, 31)] for _ in range(14)]
    rows = {
        "customers": [[name, rng.choice(cities)] for name in people],
        "products": list(map(list, zip(products, prices, strict=True))),
        "orders": buys,
    }
    columns = {
        "customers": ["name", "city"],
        "products": ["label", "price"],
        "orders": ["customer", "product", "qty", "day"],
    }
    tables = {}
    for table, table_rows in rows.items():
        lines = [["id", *(names[column] for column in columns[table])]]
        lines += [[number, *row] for number, row in enumerate(table_rows, start=1)]
        tables[names[table]] = "\n".join(",".join(map(str, line)) for line in lines)
    return tables


def make_values(rng: random.Random, tables: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    """What is asked about, all of it in the tables."""

    def column(table: str, position: int) -> list[str]:
        return [line.split(",")[position] for line in tables[names[table]].split("\n")[1:]]

    first, last = sorted(rng.sample(range(2, 30), 2))
    return {
        "c": rng.choice(column("orders", 1)),
        "p": rng.choice(column("orders", 2)),
        "t": rng.choice(column("customers", 2)),
        "n": str(rng.randrange(10, 80, 5)),
        "a": str(first),
        "b": str(last),
    }


def without_rows(tables: dict[str, str], without: dict[str, list[str]]) -> dict[str, str]:
    """The tables less the rows with these ids."""
    kept = {}
    for table, text in tables.items():
        header, *rows = text.split("\n")
        kept[table] = "\n".join([header, *(row for row in rows if row.split(",")[0] not in without.get(table, []))])
    return kept


def ask(tables: dict[str, str], *queries: str) -> list[str]:
    """What the real tool answers to each query."""
    database = ShopDb({"tables": tables})
    try:
        return [database.sql(query) for query in queries]
    finally:
        database.close()


def make_row(rng: random.Random, split: str) -> tuple[dict, Template, dict[str, str]]:
    """A question on a new database, its kind, and the words in it."""
    names = rng.choice(OTHER_SHOPS) if split == "harder" else SHOP
    template = rng.choice(HARDER_TEMPLATES if split == "harder" else TEMPLATES)
    while True:
        tables = make_tables(rng, names)
        words = names | make_values(rng, tables, names)
        answers = find_answers(rng, tables, template, words)
        if answers is not None:
            break
    schema = [f"{name}({text.split(chr(10))[0].replace(',', ', ')})" for name, text in tables.items()]
    question = f"{' '.join(schema)}\n{template.text.format(**words)}"
    row = {"messages": [{"role": "user", "content": question}], **answers, "tables": tables}
    return row, template, words


def find_answers(rng: random.Random, tables: dict[str, str], template: Template, words: dict[str, str]) -> dict | None:
    """The answer on the whole database and on one with rows taken out; None when they are no test of a query."""
    table = words[template.table]
    ids = [line.split(",")[0] for line in tables[table].split("\n")[1:]]
    without = {table: sorted(rng.sample(ids, len(ids) // 2), key=int)}
    queries = [text.format(**words) for text in (template.sql, template.scores) if text]
    answer, *scores = ask(tables, *queries)
    if answer in ("0", "null", "no rows"):
        return None
    other, *other_scores = ask(without_rows(tables, without), *queries)
    if answer == other or any(len(set(best.split("\n"))) < 2 for best in [*scores, *other_scores]):
        return None
    return {
        "answer": answer,
        "answer_without": None if other == "no rows" else other,
        "without": without,
        "sql": queries[0],
    }


def make_calls(rng: random.Random, row: dict, template: Template, words: dict[str, str]) -> list[str]:
    """The queries of a demonstration: mostly a look at a table or two first, and two queries instead of a join."""
    looks = [f"SELECT * FROM {words[table]} LIMIT 2" for table in template.look_at]
    looks = looks[: rng.choices([0, 1, 2], weights=[2, 5, 3])[0]]
    if template.first and rng.random() < 0.7:
        found = ask(row["tables"], template.first.format(**words))[0].split("\n")
        listed = ", ".join(f"'{name}'" for name in found)
        return [*looks, template.first.format(**words), template.then.format(**words, found=listed)]
    return [*looks, row["sql"]]


def demonstrate(row: dict, queries: list[str]) -> dict:
    """The queries run by the real tool, then the answer."""
    messages = list(row["messages"])
    for turn, (query, output) in enumerate(zip(queries, ask(row["tables"], *queries), strict=True)):
        call_id = f"call_{turn}_0"
        function = {"name": "sql", "arguments": json.dumps({"query": query})}
        messages.append(
            {"role": "assistant", "tool_calls": [{"id": call_id, "type": "function", "function": function}]}
        )
        messages.append({"role": "tool", "tool_call_id": call_id, "content": output})
    messages.append({"role": "assistant", "content": row["answer"]})
    return {"id": row["id"], "messages": messages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    seen: set[str] = set()
    files: dict[str, list[dict]] = {}
    solved = []
    for split, size in SPLITS.items():
        rng = random.Random(f"{arguments.seed} {split}")
        files[split] = []
        while len(files[split]) < size:
            row, *how = make_row(rng, split)
            content = json.dumps(row)
            if content in seen:
                continue
            seen.add(content)
            row = {"id": f"{split}-{len(files[split])}", **row}
            files[split].append(row)
            if split == "train":
                solved.append((row, *how))
    rng = random.Random(f"{arguments.seed} demonstrations")
    chosen = solved[-DEMONSTRATIONS:]
    files["demonstrations"] = [demonstrate(row, make_calls(rng, row, *how)) for row, *how in chosen]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        lines = [json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in rows]
        (arguments.out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
