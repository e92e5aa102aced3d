"""The tools of units: a calculator and a converter. Both answer with one number of five significant digits."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from decimal import Decimal
from math import isfinite

UNITS: dict[str, tuple[str, float]] = {
    # unit: (quantity, size in meters, grams or liters); international yard and pound, US liquid measures
    "km": ("length", 1000.0),
    "meters": ("length", 1.0),
    "cm": ("length", 0.01),
    "miles": ("length", 1609.344),
    "yards": ("length", 0.9144),
    "feet": ("length", 0.3048),
    "inches": ("length", 0.0254),
    "kg": ("mass", 1000.0),
    "grams": ("mass", 1.0),
    "pounds": ("mass", 453.59237),
    "ounces": ("mass", 28.349523125),
    "liters": ("volume", 1.0),
    "gallons": ("volume", 3.785411784),
    "cups": ("volume", 0.2365882365),
}

_OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_MAX_CHARS = 80
_MAX_VALUE = 1e12


def calc(expression: str) -> str:
    """Compute with + - * / and brackets."""
    if len(expression) > _MAX_CHARS:
        raise ValueError(f"longer than {_MAX_CHARS} characters")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except (SyntaxError, OverflowError, RecursionError, MemoryError):
        raise ValueError("not an expression; example: 3.2 * 4 + 1.5") from None
    return _show(value)


def convert(value: float, unit: str, into: str) -> str:
    """Convert a value into another unit."""
    for name in (unit, into):
        if name not in UNITS:
            raise ValueError(f"no unit {name[:20]}")
    (quantity, size), (other, new_size) = UNITS[unit], UNITS[into]
    if quantity != other:
        raise ValueError(f"{unit} is {quantity}, {into} is {other}")
    return _show(value * size / new_size)


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("only numbers, + - * / and brackets")


def _show(value: float) -> str:
    if not isfinite(value) or abs(value) > _MAX_VALUE:
        raise ValueError("the result is too large")
    # Five digits are enough for an answer within one in a thousand, and short enough for a small model to copy.
    return format(Decimal(f"{value:.5g}"), "f")
