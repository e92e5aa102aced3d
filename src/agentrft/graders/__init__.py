"""Graders: what turns an episode into a number, or into no number and the reason.

A new type is one file (spec and behaviour) and one line in `GRADERS` and `GraderSpec` each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from agentrft.errors import UserError
from agentrft.graders.endpoint import EndpointGrader, EndpointSpec
from agentrft.graders.grading import GroupGrader, grade_episode, grade_episodes, grade_sample
from agentrft.graders.label_model import LabelModelGrader, LabelModelSpec
from agentrft.graders.lint import lint
from agentrft.graders.multi import MultiGrader, MultiSpec
from agentrft.graders.python_code import PythonGrader, PythonSpec, fallback_of, read_source, sandbox_of
from agentrft.graders.sample import sample_from_episode, sample_object
from agentrft.graders.score_model import ScoreModelGrader, ScoreModelSpec
from agentrft.graders.spec import Setting
from agentrft.graders.string_check import StringCheckGrader, StringCheckSpec
from agentrft.graders.text_similarity import TextSimilarityGrader, TextSimilaritySpec
from agentrft.net.policy import Forbidden, NetworkPolicy
from agentrft.protocols import ChatEndpoint, Grader, Judge, OpenJudge

AnySpec = StringCheckSpec | TextSimilaritySpec | ScoreModelSpec | LabelModelSpec | PythonSpec | EndpointSpec | MultiSpec

GraderSpec = Annotated[AnySpec, Field(discriminator="type")]
"""Any grader document, by its `type`."""


def _build_endpoint(spec: EndpointSpec, setting: Setting) -> Grader:
    try:
        setting.network.check_url(spec.url)
    except Forbidden as refused:
        raise UserError(
            f"grader {spec.name!r}: {refused}; give another `url`", param=f"{setting.param}.url", code="invalid_grader"
        ) from None
    return EndpointGrader(spec, policy=setting.network)


def _build_multi(spec: MultiSpec, setting: Setting) -> Grader:
    parts = {
        name: _build(part, replace(setting, param=f"{setting.param}.graders.{name}"))
        for name, part in spec.graders.items()
    }
    return MultiGrader(spec, parts)


GRADERS: dict[str, Callable[[Any, Setting], Grader]] = {
    "string_check": lambda spec, setting: StringCheckGrader(spec),
    "text_similarity": lambda spec, setting: TextSimilarityGrader(spec, param=setting.param),
    "score_model": lambda spec, setting: ScoreModelGrader(spec, setting.open_judge(spec.endpoint(), setting.param)),
    "label_model": lambda spec, setting: LabelModelGrader(spec, setting.open_judge(spec.endpoint(), setting.param)),
    "python": lambda spec, setting: PythonGrader(spec, setting.base_dir, param=setting.param),
    "endpoint": _build_endpoint,
    "multi": _build_multi,
}
"""How each type is built from its spec and what surrounds it."""

_ADAPTER: TypeAdapter[AnySpec] = TypeAdapter(GraderSpec)


def parse_grader(document: Mapping[str, Any], *, param: str = "grader") -> AnySpec:
    """The spec of a grader document; raises UserError with the field, what was got and what was expected."""
    try:
        return _ADAPTER.validate_python(dict(document))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = _fields(first["loc"])
        where = ".".join([param, *place])
        known = "; expected one of the types " + ", ".join(GRADERS) if not place else ""
        got = "" if first["type"] in ("missing", "value_error") else f", got {_shown(first['input'])}"
        what = first["msg"].removeprefix("Value error, ")
        raise UserError(
            f"`{where}`: {what}{got}{known}; next step: see docs/graders.md", param=where, code="invalid_grader"
        ) from None


def _fields(place: Sequence[int | str]) -> list[str]:
    """A pydantic location without the types' names that the unions put into it."""
    fields = list(map(str, place[1:]))
    if fields[:1] == ["graders"]:
        fields[2:3] = []
    return fields


def build_grader(
    spec: AnySpec | Mapping[str, Any],
    base_dir: Path,
    *,
    param: str = "grader",
    open_judge: OpenJudge | None = None,
    network: NetworkPolicy | None = None,
) -> Grader:
    """A grader ready to use; whoever gets it closes it.

    `open_judge` reaches the models that `score_model` and `label_model` ask: `agentrft.engines.openai_chat.open_judge`
    outside tests. `network` says which addresses endpoints may have; what a person at the keyboard may reach when it is
    left out. Raises UserError for a bad document or source, for an address that may not be asked, and for a judge that
    cannot be opened.
    """
    if isinstance(spec, Mapping):
        spec = parse_grader(spec, param=param)
    network = network or NetworkPolicy.local()
    return _build(spec, Setting(base_dir=base_dir, param=param, open_judge=open_judge or _no_judge, network=network))


def _build(spec: AnySpec, setting: Setting) -> Grader:
    return GRADERS[spec.type](spec, setting)


def _no_judge(endpoint: ChatEndpoint, param: str) -> Judge:
    raise UserError(
        f"`{param}` asks the model {endpoint.model!r}, and nothing here can reach a model; next step: pass "
        "`open_judge=agentrft.engines.openai_chat.open_judge` to `build_grader`",
        param=param,
        code="invalid_grader",
    )


def item_paths(spec: AnySpec) -> tuple[tuple[str | int, ...], ...]:
    """The paths below `item` that a grader's templates read, for `agentrft.data.check.check_dataset`.

    What a Python grader reads of its item is not known before it runs.
    """
    return tuple(dict.fromkeys(reference.path for reference in spec.references() if reference.namespace == "item"))


def warnings_of(spec: AnySpec, base_dir: Path, *, param: str = "grader") -> list[str]:
    """What `lint` finds in the Python sources of a grader, with file and line, and a sandbox that is not the jail.

    Raises UserError for a missing file.
    """
    if isinstance(spec, MultiSpec):
        parts = spec.graders.items()
        return [found for name, part in parts for found in warnings_of(part, base_dir, param=f"{param}.graders.{name}")]
    if not isinstance(spec, PythonSpec):
        return []
    source, filename = read_source(spec, base_dir, param)
    return [f"{filename}, line {found.line}: {found.message}" for found in lint(source)] + fallback_of(spec)


def sandboxes_of(spec: AnySpec) -> list[str]:
    """A sentence on each Python grader in it: the sandbox it runs in here, and why that one."""
    if isinstance(spec, MultiSpec):
        return [found for part in spec.graders.values() for found in sandboxes_of(part)]
    return [sandbox_of(spec)] if isinstance(spec, PythonSpec) else []


def _shown(value: Any) -> str:
    # Of objects the keys, of lists the length: what is inside may be headers.
    if isinstance(value, Mapping):
        text = f"{{{', '.join(map(str, value))}}}"
    else:
        text = f"a list of {len(value)}" if isinstance(value, list | tuple) else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


__all__ = [
    "GRADERS",
    "AnySpec",
    "EndpointSpec",
    "GraderSpec",
    "GroupGrader",
    "LabelModelSpec",
    "MultiSpec",
    "PythonSpec",
    "ScoreModelSpec",
    "StringCheckSpec",
    "TextSimilaritySpec",
    "build_grader",
    "grade_episode",
    "grade_episodes",
    "grade_sample",
    "item_paths",
    "parse_grader",
    "sample_from_episode",
    "sample_object",
    "sandboxes_of",
    "warnings_of",
]
