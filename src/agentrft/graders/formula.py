"""Formulas over named numbers, for `multi` graders: parsed by a grammar of our own, never evaluated as Python.

    sum     = term (("+" | "-") term)*
    term    = signed (("*" | "/") signed)*
    signed  = "-" signed | "+" signed | power
    power   = atom ("^" signed)?                        right-associative, binds tighter than a sign before it
    atom    = number | name | function "(" sum ("," sum)* ")" | "(" sum ")"

Functions: min, max (one or more arguments), abs, floor, ceil, exp, sqrt, log (natural; one argument).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

MAX_CHARS = 2_000
_MAX_DEPTH = 50
_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*)|(.))", re.ASCII)

_ONE_ARGUMENT: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
_MANY_ARGUMENTS: dict[str, Callable[..., float]] = {"min": min, "max": max}
FUNCTIONS = frozenset(_ONE_ARGUMENT) | frozenset(_MANY_ARGUMENTS)

_OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "^": math.pow,
}

Node = Any
"""A number, a name (str), or a tuple (function, arguments)."""


class Formula:
    """One parsed formula."""

    def __init__(self, text: str) -> None:
        """Raises ValueError with what was got and expected where."""
        if len(text) > MAX_CHARS:
            raise ValueError(f"got a formula of {len(text)} characters, expected {MAX_CHARS} at most")
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0
        self.names: set[str] = set()
        """Names the formula reads."""
        self._tree = self._sum()
        if self._peek():
            raise self._unexpected("an operator or the end")

    def value(self, numbers: Mapping[str, float]) -> float:
        """The result; raises ValueError when there is none (division by zero, log of 0, overflow)."""
        try:
            result = float(_evaluate(self._tree, numbers))
        except (ArithmeticError, ValueError) as error:
            raise ValueError(str(error)) from None
        if not math.isfinite(result):
            raise ValueError(f"the result is {result}")
        return result

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _unexpected(self, expected: str) -> ValueError:
        if self._at >= len(self._tokens):
            return ValueError(f"the formula ends early, expected {expected}")
        token, position = self._tokens[self._at]
        return ValueError(f"got {token!r} at character {position + 1}, expected {expected}")

    def _sum(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError(f"the formula is nested deeper than {_MAX_DEPTH} levels")
        node = self._chain("+-", lambda: self._chain("*/", self._signed))
        self._depth -= 1
        return node

    def _chain(self, operators: str, operand: Callable[[], Node]) -> Node:
        node = operand()
        while self._peek() and self._peek() in operators:
            operator = self._take()
            node = (_OPERATORS[operator], (node, operand()))
        return node

    def _signed(self) -> Node:
        sign = 1.0
        while self._peek() in ("-", "+"):
            sign = -sign if self._take() == "-" else sign
        node = self._power()
        return node if sign > 0 else (_OPERATORS["*"], (-1.0, node))

    def _power(self) -> Node:
        base = self._atom()
        if self._peek() != "^":
            return base
        self._take()
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError(f"the formula is nested deeper than {_MAX_DEPTH} levels")
        exponent = self._signed()
        self._depth -= 1
        return (_OPERATORS["^"], (base, exponent))

    def _atom(self) -> Node:
        token = self._peek()
        if token == "(":
            self._take()
            node = self._sum()
            self._close()
            return node
        if token[:1].isdigit() or (token[:1] == "." and len(token) > 1):
            return float(self._take())
        if not re.fullmatch(r"[A-Za-z_]\w*", token):
            raise self._unexpected("a number, a grader's name or '('")
        name = self._take()
        if name not in FUNCTIONS:
            self.names.add(name)
            return name
        return self._call(name)

    def _call(self, name: str) -> Node:
        if self._peek() != "(":
            raise self._unexpected(f"'(' after {name}")
        self._take()
        arguments = [self._sum()]
        while self._peek() == ",":
            self._take()
            arguments.append(self._sum())
        self._close()
        if name in _MANY_ARGUMENTS:
            return (lambda *values: _MANY_ARGUMENTS[name](values), tuple(arguments))
        if len(arguments) != 1:
            raise ValueError(f"got {len(arguments)} arguments for {name}, expected 1")
        return (_ONE_ARGUMENT[name], tuple(arguments))

    def _close(self) -> None:
        if self._peek() != ")":
            raise self._unexpected("')'")
        self._take()


def _tokens(text: str) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    at = 0
    text = text.rstrip()
    while at < len(text) and (match := _TOKEN.match(text, at)):
        token = match[1] or match[2] or match[3]
        found.append((token, match.end() - len(token)))
        at = match.end()
    return found


def _evaluate(node: Node, numbers: Mapping[str, float]) -> float:
    if isinstance(node, str):
        return numbers[node]
    if isinstance(node, float):
        return node
    function, arguments = node
    return function(*(_evaluate(argument, numbers) for argument in arguments))
