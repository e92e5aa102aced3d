"""Formulas of `multi` graders: values, refusals, and nothing of Python's in reach."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrft.graders.formula import MAX_CHARS, Formula

NUMBERS = {"a": 0.5, "b": 4.0, "zero": 0.0, "_x1": 2.0}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("a", 0.5),
        (" a + b ", 4.5),
        ("b - 1 - 1", 2.0),  # from the left
        ("b / 2 / 2", 1.0),
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("2 ^ 3 ^ 2", 512.0),  # from the right
        ("-2 ^ 2", -4.0),  # the sign binds less than the power
        ("2 ^ -1", 0.5),
        ("2 * -3", -6.0),
        ("--1 + +1", 2.0),
        ("1e-3 + .5 + 2.", 2.501),
        ("min(a, b, 1)", 0.5),
        ("max(b)", 4.0),
        ("abs(-b) + floor(1.7) + ceil(1.2)", 7.0),
        ("exp(0) + sqrt(b) + log(1)", 3.0),
        ("0.8 * a + 0.2 * min(b / 5, 1)", 0.56),
        ("_x1", 2.0),
    ],
)
def test_values(text, value):
    assert Formula(text).value(NUMBERS) == pytest.approx(value)


def test_names_are_listed():
    assert Formula("a + min(b, 2) * a").names == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the formula ends early, expected a number, a grader's name or '('"),
        ("a +", "the formula ends early"),
        ("a b", "got 'b' at character 3, expected an operator or the end"),
        ("(a", "the formula ends early, expected ')'"),
        ("a)", "got ')' at character 2, expected an operator or the end"),
        ("2 ** 3", "got '*' at character 4, expected a number"),
        ("a.real", "got '.' at character 2"),
        ("a[0]", "got '[' at character 2"),
        ("min", "the formula ends early, expected '(' after min"),
        ("sqrt(1, 2)", "got 2 arguments for sqrt, expected 1"),
        ("min()", "got ')' at character 5, expected a number"),
        ("open('x')", "got '(' at character 5, expected an operator"),
        ("__import__('os')", "got '(' at character 11"),
        ("a if b else 1", "got 'if' at character 3"),
        ("lambda: 1", "got ':' at character 7"),
        ("'text'", 'got "\'" at character 1'),
        ("α", "got 'α' at character 1"),
        ("(" * 60 + "a" + ")" * 60, "the formula is nested deeper than 50 levels"),
        ("2^" * 60 + "2", "the formula is nested deeper than 50 levels"),
        ("a" * (MAX_CHARS + 1), "got a formula of 2001 characters, expected 2000 at most"),
    ],
)
def test_refusals(text, reason):
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
        Formula(text)


@pytest.mark.parametrize(
    "text",
    ["1 / zero", "log(zero)", "sqrt(-1)", "(-1) ^ 0.5", "zero ^ -1", "exp(1000)", "10 ^ 400", "1e999"],
)
def test_formulas_without_a_result(text):
    formula = Formula(text)
    with pytest.raises(ValueError):
        formula.value(NUMBERS)


_LEAVES = st.sampled_from(["a", "b", "zero", "1.5", "2"])
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/^"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"{t[0]} {t[1]} {t[2]}"),
        inner.map(lambda t: f"-{t}"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
        st.tuples(st.sampled_from(["abs", "floor", "ceil", "sqrt"]), inner).map(lambda t: f"{t[0]}({t[1]})"),
    ),
    max_leaves=12,
)


@given(_TREES)
def test_agrees_with_pythons_own_arithmetic(text):
    space = {"min": min, "max": max, "abs": abs, "floor": math.floor, "ceil": math.ceil, "sqrt": math.sqrt, **NUMBERS}
    try:
        expected = eval(text.replace("^", "**"), {"__builtins__": {}}, space)
        usable = not isinstance(expected, complex) and math.isfinite(expected)
    except (ArithmeticError, ValueError, TypeError):
        usable = False
    try:
        value = Formula(text).value(NUMBERS)
    except ValueError:
        assert not usable or abs(expected) > 1e300
    else:
        assert usable
        assert value == pytest.approx(expected)


@given(st.text(alphabet="ab+-*/^()., 10emin_", max_size=30))
def test_any_text_is_a_formula_or_a_refusal(text):
    try:
        formula = Formula(text)
    except ValueError:
        return
    assert formula.names <= {name for name in formula.names if name.isidentifier()}
