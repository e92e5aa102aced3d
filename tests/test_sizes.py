"""Size is a rule: files ≤ 400 lines, functions ≤ 60 lines, ≤ 8 parameters. Complexity is ruff's part (C90)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 8

EXCEPTIONS: dict[str, str] = {}
"""`path` or `path:function` → why it may be larger. Never a train loop, the job runner, the CLI or the HTTP app."""

NEVER_EXCEPTED = ("src/agentrft/train/", "src/agentrft/jobs/", "src/agentrft/cli/", "src/agentrft/server/")

FOLDERS = ("src", "tests", "examples", "benchmarks", "scripts")


def python_files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters a caller may pass: `self` and `cls` are not among them."""
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return sum(1 for argument in every if argument.arg not in ("self", "cls"))


def oversized(name: str, text: str) -> list[tuple[str, str]]:
    """(key into EXCEPTIONS, what is too large) of one file."""
    found = []
    lines = len(text.splitlines())
    if lines > MAX_FILE_LINES:
        found.append((name, f"{lines} lines, at most {MAX_FILE_LINES}"))
    for function in functions(ast.parse(text)):
        key = f"{name}:{function.name}"
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > MAX_FUNCTION_LINES:
            found.append((key, f"{length} lines, at most {MAX_FUNCTION_LINES}"))
        if (count := parameters(function)) > MAX_PARAMETERS:
            found.append((key, f"{count} parameters, at most {MAX_PARAMETERS}"))
    return found


def test_files_and_functions_keep_to_their_size() -> None:
    problems = [
        f"{key}: {problem}; split it, or list it in EXCEPTIONS with the reason"
        for path in python_files()
        for key, problem in oversized(str(path.relative_to(ROOT)), path.read_text())
        if key not in EXCEPTIONS
    ]
    assert not problems, "\n".join(problems)


def test_exceptions_are_still_needed_and_never_the_organs_that_rot() -> None:
    needed = {key for path in python_files() for key, _ in oversized(str(path.relative_to(ROOT)), path.read_text())}
    assert set(EXCEPTIONS) <= needed, f"no longer too large, remove: {sorted(set(EXCEPTIONS) - needed)}"
    assert not [key for key in EXCEPTIONS if key.startswith(NEVER_EXCEPTED)]
    assert all(EXCEPTIONS.values()), "every exception says why"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = 1\n" * 401, "401 lines, at most 400"),
        ("def f():\n" + "    pass\n" * 60, "61 lines, at most 60"),
        ("def f(a, b, c, d, e, *, f, g, h, i): ...\n", "9 parameters, at most 8"),
    ],
)
def test_the_rules_bite(text: str, problem: str) -> None:
    assert [found for _, found in oversized("x.py", text)] == [problem]
