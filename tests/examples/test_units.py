"""units: the tools, the grader's numbers, its hacks, and how good the best policy is."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import pytest

ROW: dict[str, Any] = {
    "id": "row-1",
    "messages": [{"role": "user", "content": "One loop is 3.2 km. How many miles are 14 loops?"}],
    "answer": "27.837",
    "unit": "miles",
    "calls": 2,
    "ways": [[44.8, 27.837], [1.9884, 27.838]],
}
PRODUCT = ("calc", {"expression": "14 * 3.2"})
CONVERT = ("convert", {"value": 44.8, "unit": "km", "into": "miles"})
BACK = ("convert", {"value": 27.837, "unit": "miles", "into": "km"})


@pytest.fixture(scope="module")
def units(open_example: Any) -> Any:
    return open_example("units")


@pytest.mark.parametrize(
    ("expression", "output"),
    [
        ("3.2 * 14 + 5.6", "50.4"),
        ("(1 + 2) / -4", "-0.75"),
        ("2 / 3", "0.66667"),
        ("123456 * 10", "1234600"),  # five significant digits, never an exponent
        ("1 / 30000", "0.000033333"),
        ("0 * 3", "0"),
        ("-0 * 3", "-0"),
        ("1 / 0", "error: division by zero"),
        ("3.2 km", "error: not an expression; example: 3.2 * 4 + 1.5"),
        ("", "error: not an expression; example: 3.2 * 4 + 1.5"),
        ("2 ** 9", "error: only numbers, + - * / and brackets"),
        ("__import__('os')", "error: only numbers, + - * / and brackets"),
        ("True + 1", "error: only numbers, + - * / and brackets"),
        ("'a' * 9", "error: only numbers, + - * / and brackets"),
        ("1j * 2", "error: only numbers, + - * / and brackets"),
        ("1e999", "error: the result is too large"),
        ("9e99 * 9e99", "error: the result is too large"),
        ("1 + " * 30 + "1", "error: longer than 80 characters"),
        ("(" * 79, "error: not an expression; example: 3.2 * 4 + 1.5"),
    ],
)
async def test_calc(units: Any, expression: str, output: str) -> None:
    assert await units.outputs(ROW, [("calc", {"expression": expression})]) == [output]


@pytest.mark.parametrize(
    ("value", "unit", "into", "output"),
    [
        (44.8, "km", "miles", "27.837"),  # 44.8 / 1.609344 = 27.8374…
        (1, "miles", "km", "1.6093"),
        (10, "feet", "meters", "3.048"),
        (2.5, "kg", "pounds", "5.5116"),  # 2.5 / 0.45359237 = 5.51155…
        (1, "gallons", "liters", "3.7854"),
        (16, "cups", "gallons", "1"),
        (5, "miles", "mile", "error: no unit mile"),
        (5, "km", "kg", "error: km is length, kg is mass"),
        (1e300, "km", "cm", "error: the result is too large"),
    ],
)
async def test_convert(units: Any, value: float, unit: str, into: str, output: str) -> None:
    assert await units.outputs(ROW, [("convert", {"value": value, "unit": unit, "into": into})]) == [output]


async def test_the_stated_rewards(units: Any) -> None:
    # quality × (1 − 0.15 × calls beyond two); quality = 0.7 × answer + 0.3 × steps
    assert await units.score(ROW, [PRODUCT, CONVERT], "27.837") == 1.0
    assert await units.score(ROW, [PRODUCT, CONVERT], "27.84 miles") == 1.0
    assert await units.score(ROW, [PRODUCT, CONVERT, BACK], "27.837") == pytest.approx(0.85)
    assert await units.score(ROW, [PRODUCT, PRODUCT, CONVERT, BACK], "27.837") == pytest.approx(0.7)
    one = ("convert", {"value": 3.2, "unit": "km", "into": "miles"})
    other = ("calc", {"expression": "14 * 1.9884"})
    assert await units.score(ROW, [one, other], "27.838") == 1.0
    # the right number by one call that shows half of a way: 0.7 + 0.15
    assert await units.score(ROW, [("convert", {"value": 44.8, "unit": "km", "into": "miles"})], "27.837") == 0.85
    # off by a tenth: 0.7 × 0.25 × exp(−0.4) + 0.3
    expected = 0.175 * math.exp(-0.4) + 0.3
    assert await units.score(ROW, [PRODUCT, CONVERT], "30.6207") == pytest.approx(expected)
    # the product instead of the miles: error 0.609…, half of the steps
    expected = 0.175 * math.exp(-4 * (44.8 / 27.837 - 1)) + 0.15
    assert await units.score(ROW, [PRODUCT], "44.8") == pytest.approx(expected)
    assert await units.score(ROW, [PRODUCT, CONVERT], "") == 0.0
    assert await units.score(ROW, [PRODUCT, CONVERT], None) == 0.0


async def test_a_perfect_guess_is_worth_little(units: Any) -> None:
    assert await units.score(ROW, [], "27.837") == pytest.approx(0.175)
    # echoing the guess through a tool: the answer counts, the step before it was never shown
    assert await units.score(ROW, [("calc", {"expression": "27.837"})], "27.837") == pytest.approx(0.85)
    # repeating it does not make two steps of one
    twice = [("calc", {"expression": "27.837"})] * 2
    assert await units.score(ROW, twice, "27.837") == pytest.approx(0.85)


@pytest.mark.parametrize(
    "answer",
    [
        "44.8 27.837",
        "27.837 or 28",
        "Answer: Answer: 27.837",
        "27.837 km",
        "= 27.837",
        "2.7837e1",
        "２７.837",
        "about 27.837",
    ],
)
async def test_only_one_plain_number_is_an_answer(units: Any, answer: str) -> None:
    assert await units.score(ROW, [PRODUCT, CONVERT], answer) == 0.0


async def test_numbers_in_errors_and_in_the_models_words_are_no_evidence(units: Any) -> None:
    wrong = [("convert", {"value": 1, "unit": "44.8", "into": "27.837"}), ("calc", {"expression": "27.837 miles"})]
    assert await units.score(ROW, wrong, "27.837") == pytest.approx(0.175)
    sample = await units.play(ROW, [], "27.837")
    said = {"role": "assistant", "content": "27.837"}
    assert units.grade(sample | {"messages": [*sample["messages"], said]}, ROW) == pytest.approx(0.175)


async def test_printing_many_numbers_costs_more_than_it_finds(units: Any) -> None:
    many = [("calc", {"expression": str(number)}) for number in (44.8, 1.9884, 27.837, 30)]
    assert await units.score(ROW, many, "30") < 0.5


async def test_malformed_replies_count_as_calls(units: Any) -> None:
    sample = await units.play(ROW, [PRODUCT, CONVERT], "27.837")
    assert units.grade(sample | {"n_calls": 3}, ROW) == pytest.approx(0.85)
    assert units.grade(sample | {"n_calls": 99}, ROW) == 0.0


@pytest.mark.parametrize("split", ["train", "validation", "test", "harder"])
async def test_the_best_policy_reads_the_question_and_earns_one(units: Any, split: str) -> None:
    for row in units.splits[split]:
        calls, answer = await solve(units, row)
        assert len(calls) == row["calls"] <= 3
        assert await units.score(row, calls, answer) == 1.0, row["messages"]


async def solve(units: Any, row: dict[str, Any]) -> tuple[list[Any], str]:
    """The shortest way, from the question's text alone."""
    text = row["messages"][0]["content"]
    numbers = re.findall(r"\d+(?:\.\d+)?", text)
    words = [word for word in re.findall(r"[a-z]+", text) if word in UNITS]
    calls: list[Any] = []

    async def run(name: str, **arguments: Any) -> str:
        calls.append((name, arguments))
        return (await units.outputs(row, [calls[-1]]))[0]

    async def convert(value: str, unit: str, into: str) -> str:
        return await run("convert", value=float(value), unit=unit, into=into)

    if "shared by 7" in text:
        product = await run("calc", expression=f"{numbers[0]} * {numbers[1]}")
        converted = await convert(product, words[0], words[1])
        return calls, await run("calc", expression=f"({converted} + {numbers[2]}) / 7")
    if " and one of " in text:
        total = await run("calc", expression=f"{numbers[0]} * {numbers[1]} + {numbers[2]}")
        return calls, total if words[0] == words[-1] else await convert(total, words[0], words[-1])
    if "in all" in text:
        converted = await convert(numbers[0], words[0], words[-1])
        return calls, await run("calc", expression=f"{converted} + {numbers[1]}")
    if text.startswith("One "):
        product = await run("calc", expression=f"{numbers[0]} * {numbers[1]}")
        return calls, await convert(product, words[0], words[1])
    unit, into = (words[1], words[0]) if text.startswith("How many") else (words[0], words[1])
    return calls, await convert(numbers[0], unit, into)


UNITS = {"km", "meters", "cm", "miles", "yards", "feet", "inches", "kg", "grams", "pounds", "ounces"} | {
    "liters",
    "gallons",
    "cups",
}


def test_steps_are_apart_from_each_other(units: Any) -> None:
    """So that no step counts as shown because another one was."""
    for rows in units.splits.values():
        for row in rows:
            for way in row["ways"]:
                assert all(abs(a - b) > 0.002 * abs(b) for a, b in itertools.combinations(way, 2)), row["id"]


def test_demonstrations_show_every_skill_but_rarely_the_short_way(units: Any) -> None:
    train = {row["id"]: row for row in units.splits["train"]}
    combined, checked, shortest, split_up = 0, 0, 0, 0
    for demonstration in units.rows("demonstrations"):
        row = train[demonstration["id"]]
        functions = [call["function"] for m in demonstration["messages"] for call in m.get("tool_calls") or []]
        outputs = [m["content"] for m in demonstration["messages"] if m["role"] == "tool"]
        combined += any("*" in call["arguments"] and "+" in call["arguments"] for call in functions)
        checked += outputs[-1] != row["answer"]
        shortest += len(functions) == row["calls"]
        split_up += sum(call["name"] == "calc" for call in functions) == 2
    assert combined > 5
    assert split_up > 40
    assert checked > 50
    assert 0.2 < shortest / 192 < 0.55
