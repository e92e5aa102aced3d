"""Reads a job file: YAML with line numbers in, a `JobSpec` or one clear message out."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from agentrft.errors import UserError
from agentrft.graders import AnySpec, parse_grader
from agentrft.jobs.probe import missing_grader
from agentrft.jobs.spec import JobSpec
from agentrft.tools import Guardrails

Loc = tuple[str | int, ...]

MAX_PROBLEMS = 8
"""More than this at once is noise; the rest is counted."""


def load_job(path: str | Path) -> tuple[JobSpec, Path]:
    """The job in a YAML (or JSON) file, and the folder that its paths are relative to.

    Raises UserError naming file, line and key for everything that is wrong with it.
    """
    path = Path(path)
    text = _read(path)
    document, lines = _parse(path, text)
    return parse_job(document, lines=lines, source=str(path)), path.resolve().parent


def load_grader(path: str | Path) -> tuple[AnySpec, Path]:
    """The grader of a job file, or of a YAML or JSON file that holds a grader alone, and the folder of its paths.

    Raises UserError as `load_job` does, and for a job without a grader.
    """
    path = Path(path)
    document, lines = _parse(path, _read(path))
    base_dir = path.resolve().parent
    if isinstance(document, dict) and "type" in document:
        return parse_grader(document), base_dir
    reinforcement = parse_job(document, lines=lines, source=str(path)).method.reinforcement
    if reinforcement is None:
        raise missing_grader()
    return reinforcement.grader, base_dir


def load_guardrails(path: str | Path) -> tuple[Guardrails, Path]:
    """The guardrails of a job file, or of a file that holds them alone, and the folder of its paths.

    Raises UserError as `load_job` does, and for a job without guardrails.
    """
    path = Path(path)
    document, lines = _parse(path, _read(path))
    if isinstance(document, dict) and "guardrails" not in document and "method" not in document:
        document = {"model": "any", "data": {}, "guardrails": document}
        lines = {("guardrails", *loc): line for loc, line in lines.items()}
    guardrails = parse_job(document, lines=lines, source=str(path)).guardrails
    if guardrails is None:
        raise UserError(f"{path}: the job has no `guardrails`; see docs/guardrails.md", param="guardrails")
    return guardrails, path.resolve().parent


def parse_job(document: Any, *, lines: Mapping[Loc, int] | None = None, source: str = "job") -> JobSpec:
    """A checked `JobSpec` from plain data (a stored document, or YAML with `lines` by key path)."""
    if not isinstance(document, dict):
        raise UserError(
            f"{source}: expected a mapping with `model`, `method` and `data`, got {_kind(document)}. See docs/job.md.",
            code="invalid_job",
        )
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        # Unknown keys first: they are often why another key is missing.
        details = sorted(error.errors(include_url=False), key=lambda detail: detail["type"] != "extra_forbidden")
        problems = [_problem(source, lines or {}, detail) for detail in details]
    shown = [message for message, _ in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        shown.append(f"… and {len(problems) - MAX_PROBLEMS} more.")
    raise UserError("\n".join(shown), param=problems[0][1], code="invalid_job")


def _read(path: Path) -> str:
    if path.is_dir():
        inside = path / "job.yaml"
        hint = f"Give the file: {inside}" if inside.exists() else "Give the path of a job.yaml."
        raise UserError(f"{path}: expected a job file, got a folder. {hint}", code="missing_file")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(_not_found(path), code="missing_file") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: expected UTF-8 text, got byte {error.object[error.start]:#04x} at position {error.start}.",
            code="invalid_job",
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).", code="missing_file") from None


def _not_found(path: Path) -> str:
    message = f"{path}: no such file (looked in {path.resolve().parent})."
    near = [str(found) for found in sorted(Path().glob("**/job.yaml"))[:3]] if path.suffix in (".yaml", ".yml") else []
    return f"{message} Next: give the path of a job file" + (f", for example {near[0]}." if near else ".")


def _parse(path: Path, text: str) -> tuple[Any, dict[Loc, int]]:
    """The document and the line of every key; raises UserError for what is neither YAML nor JSON."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document, lines = _parse_yaml(path, text)
    else:
        # Where JSON and YAML differ (tabs, pairs of \\u escapes) the file means JSON; YAML only tells the lines.
        _, lines = _parse_yaml(path, text.replace("\t", " "))
    try:
        json.dumps(document, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        got = error.object[error.start : error.start + 1].encode("unicode_escape").decode()
        raise UserError(
            f"{path}: the text {got} is half a character (a lone surrogate). Write the character itself.",
            code="invalid_job",
        ) from None
    return document, lines


def _parse_yaml(path: Path, text: str) -> tuple[Any, dict[Loc, int]]:
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise UserError(f"{path}: the file is empty. Expected `model`, `method` and `data`.", code="invalid_job")
        lines = dict(_lines(path, node, ()))
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(
            f"{path}{where}: not valid YAML: {error.problem or error.context}. "
            "Check the indentation and quote values that contain `: ` or `#`.",
            code="invalid_yaml",
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # a control character; a date such as 2024-02-30
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}.", code="invalid_yaml") from None
    except RecursionError:
        raise UserError(
            f"{path}: an anchor (`&`) contains itself. Write the values out.", code="invalid_yaml"
        ) from None
    finally:
        if loader is not None:
            loader.dispose()


def _lines(path: Path, node: yaml.Node, loc: Loc) -> Iterator[tuple[Loc, int]]:
    """Key path → 1-based line; raises UserError for a key given twice."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                raise UserError(
                    f"{path} line {line}: `{name}` is given twice (first in line {seen[name]}). Keep one of them.",
                    param=".".join(map(str, (*loc, name))),
                    code="invalid_job",
                )
            seen[name] = line
            yield (*loc, name), line
            yield from _lines(path, value, (*loc, name))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*loc, index), value.start_mark.line + 1
            yield from _lines(path, value, (*loc, index))


def _problem(source: str, lines: Mapping[Loc, int], detail: Any) -> tuple[str, str]:
    """One message and its `param` for one of pydantic's errors."""
    loc, owner = _follow(JobSpec, detail["loc"])
    param = ".".join(map(str, loc))
    line = next((lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in lines), None)
    where = f"{source} line {line}" if line else source
    kind, given = detail["type"], detail.get("input")
    if kind == "extra_forbidden":
        return f"{where}: {_unknown_key(str(loc[-1]), '.'.join(map(str, loc[:-1])), owner)}", param
    if kind == "missing":
        return f"{where}: `{param}` is missing. {_purpose(owner, str(loc[-1]))}", param
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tags = detail["ctx"].get("expected_tags") or ", ".join(_tags(_annotation_at(JobSpec, loc)))
        got = f"`{detail['ctx']['tag']}`" if kind == "union_tag_invalid" else "none"
        return f"{where}: `{param}.type`: expected one of {tags.replace(chr(39), '`')}, got {got}.", f"{param}.type"
    text = str(detail["ctx"]["error"]) if kind == "value_error" else _expectation(detail)
    got = "" if kind == "value_error" else f", got {_show(given)}"
    return f"{where}: `{param or 'job'}`: {text}{got}.", param


def _unknown_key(key: str, parent: str, owner: type[BaseModel] | None) -> str:
    valid = list(owner.model_fields) if owner else []
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    under = f" under `{parent}`" if parent else ""
    advice = f"Did you mean `{near[0]}`?" if near else "Remove it, or see docs/job.md."
    return f"unknown key `{key}`{under}. Expected one of: {', '.join(valid)}. {advice}"


def _purpose(owner: type[BaseModel] | None, key: str) -> str:
    examples = {
        "model": "Add for example `model: smollm2-135m-instruct`.",
        "data": "Add the data files, for example `data: {train: train.jsonl}`.",
        "grader": "Add a grader, for example `{type: python, name: reward, source_file: grader.py}`.",
    }
    return examples.get(key, f"Add it{f' to the {owner.__name__} section' if owner else ''}; see docs/job.md.")


def _expectation(detail: Any) -> str:
    message = detail["msg"]
    return "expected " + message.removeprefix("Input should be ").removeprefix("a valid ").rstrip(".")


def _show(value: Any) -> str:
    if isinstance(value, list | dict) and value:
        return _kind(value)  # what is inside may be a grader's headers
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _kind(value: Any) -> str:
    return {list: "a list", str: "text", type(None): "nothing"}.get(type(value), f"a {type(value).__name__}")


def _follow(root: Any, loc: Sequence[str | int]) -> tuple[Loc, type[BaseModel] | None]:
    """pydantic's location without its union tags, and the document class that owns the last key."""
    annotation, path, owner = root, [], None
    for part in loc:
        owner = next((c for c in _models(annotation)), None)
        member = _tagged(annotation, part)
        if member is not None:
            annotation = member
            continue
        path.append(part)
        annotation = _step(annotation, part)
    return tuple(path), owner


def _annotation_at(root: Any, loc: Loc) -> Any:
    for part in loc:
        root = _step(root, part)
    return root


def _step(annotation: Any, part: str | int) -> Any:
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel) and part in member.model_fields:
            return member.model_fields[str(part)].annotation
        if get_origin(member) in (list, tuple, dict) and get_args(member):
            return get_args(member)[-1] if get_origin(member) is dict else get_args(member)[0]
    return None


def _members(annotation: Any) -> Iterator[Any]:
    """The plain alternatives of an annotation, Annotated, Optional and Union taken off."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for arg in get_args(annotation):
            yield from _members(arg)
    elif annotation is not None and annotation is not type(None):
        yield annotation


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            yield member


def _tag_of(model: type[BaseModel]) -> tuple[str, ...]:
    field = model.model_fields.get("type")
    return get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()


def _tags(annotation: Any) -> list[str]:
    return [tag for model in _models(annotation) for tag in _tag_of(model)]


def _tagged(annotation: Any, part: str | int) -> type[BaseModel] | None:
    """The union member that `part` is the tag of, when pydantic put a tag into the location."""
    models = list(_models(annotation))
    if len(models) < 2:
        return None
    return next((model for model in models if part in _tag_of(model)), None)
