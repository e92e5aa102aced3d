"""What users can write or meet is in `docs/`: error codes, commands and options, job fields, kinds of every part."""

from __future__ import annotations

import ast
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main
from pydantic import BaseModel
from typer.core import TyperGroup

ROOT = Path(__file__).parents[1]
SRC, DOCS = ROOT / "src" / "agentrft", ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").glob("*/README.md")])


def named(page: str) -> set[str]:
    """Every word between backticks on a page of `docs/`."""
    spans = re.findall(r"`([^`\n]+)`", (DOCS / page).read_text())
    fences = re.findall(r"```.*?\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)
    return {word for text in [*spans, *fences] for word in [text, *re.findall(r"[\w.-]+", text)]}


def error_codes(tree: ast.AST) -> Iterator[str]:
    """Strings given as `code=…`, or as the default of a parameter `code`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "code":
            yield from (leaf.value for leaf in _branches(node.value) if isinstance(leaf.value, str))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                if argument.arg == "code" and isinstance(default, ast.Constant) and isinstance(default.value, str):
                    yield default.value


def _branches(value: ast.expr) -> Iterator[ast.Constant]:
    if isinstance(value, ast.Constant):
        yield value
    elif isinstance(value, ast.IfExp):
        yield from _branches(value.body)
        yield from _branches(value.orelse)


def job_fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of every field of the job document, but graders' (docs/graders.md) and losses' (docs/losses.md)."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for part in _models(field.annotation):
            if not part.__module__.startswith(("agentrft.graders", "agentrft.losses")):
                yield from job_fields(part, f"{prefix}{name}.")


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models(part)


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, groups included."""
    yield path, command
    if isinstance(command, TyperGroup):
        for name, part in command.commands.items():
            if not part.hidden:
                yield from commands(part, f"{path} {name}")


def codes_in_source() -> set[str]:
    return {code for path in SRC.rglob("*.py") for code in error_codes(ast.parse(path.read_text()))}


def test_every_error_code_is_explained_and_every_explained_one_exists() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "errors.md").read_text(), flags=re.MULTILINE)
    assert len(rows) == len(set(rows)), "a code is explained twice"
    assert sorted(codes_in_source() - set(rows)) == [], "add these to docs/errors.md"
    assert sorted(set(rows) - codes_in_source()) == [], "remove these from docs/errors.md"


OWN_PAGES = {
    "agent.tools.": ("tools.md", "http-tools.md", "mcp-tools.md"),
    "agent.outputs.": ("tool-outputs.md",),
    "guardrails.": ("guardrails.md",),
}
"""Where the fields under a prefix are explained, other than in job.md."""


def test_every_job_field_is_explained() -> None:
    from agentrft.jobs.spec import JobSpec

    for name in job_fields(JobSpec):
        pages = next((found for prefix, found in OWN_PAGES.items() if name.startswith(prefix)), ("job.md",))
        known = {word for page in pages for word in named(page)}
        parts = name.split(".")
        endings = {".".join(parts[k:]) for k in range(len(parts))}
        assert endings & known, f"add {name} to docs/{' or docs/'.join(pages)}"


def test_every_grader_type_and_its_fields_are_explained() -> None:
    from agentrft.graders import GRADERS, GraderSpec

    known = named("graders.md")
    fields = {name for spec in _models(GraderSpec) for name in spec.model_fields}
    assert fields
    assert sorted((set(GRADERS) | fields) - known) == [], "add these to docs/graders.md"


def test_every_command_and_option_is_explained() -> None:
    from agentrft.cli.app import app

    known, text = named("cli.md"), (DOCS / "cli.md").read_text()
    for path, command in commands(typer.main.get_command(app), "agentrft"):
        assert f"`{path}" in text or f"\n{path}" in text, f"add `{path}` to docs/cli.md"
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        assert sorted(options - known - {"--help"}) == [], f"add these options of {path} to docs/cli.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    broken = [
        target
        for target in targets
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).resolve().exists()
    ]
    assert broken == []


def test_decisions_are_numbered_and_short() -> None:
    pages = sorted((DOCS / "decisions").glob("*.md"))
    numbers = [re.match(r"(\d{4})-", page.name) for page in pages]
    assert all(numbers)
    assert len({number[1] for number in numbers if number}) == len(pages), "two decisions share a number"
    assert [page.name for page in pages if len(page.read_text().splitlines()) > 60] == [], "over a page"


def test_the_code_finder_sees_branches_and_defaults() -> None:
    text = (
        "def f(*, code: str = 'a'): ...\ndef g(*, code: int | None = None): ...\n"
        "f(code='b' if x else 'c')\nf(code=other.code)"
    )
    assert sorted(error_codes(ast.parse(text))) == ["a", "b", "c"]
