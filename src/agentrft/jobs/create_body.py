"""OpenAI's create body → a job: `POST /v1/fine_tuning/jobs` as the SDK sends it, and our extra keys in `method.<type>`.

Everything is read strictly: an unknown key, a value out of OpenAI's bounds and an option that could take no effect here
are errors whose `param` is the path in the body. `docs/openai-api.md` has the fields.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from agentrft.errors import UserError
from agentrft.jobs.body_paths import FILES, error_in_body
from agentrft.jobs.hyperparameters import MethodType, Settings, check_known, translate
from agentrft.jobs.load import parse_job
from agentrft.jobs.remote import check_model_name, check_remote
from agentrft.jobs.response_format import check_output_json
from agentrft.jobs.shown import shown
from agentrft.jobs.spec import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyRules:
    """What an operator may set."""

    min_examples: int = 10
    """Rows that each file must have."""
    judge_urls: Collection[str] = ()
    """Where graders may ask models, beside the address that the operator has set for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiJob:
    """A job that a create body asks for."""

    spec: JobSpec
    request: dict[str, Any]
    """The body as the job object shows it again: "auto" and null filled in, secrets masked. Kept in the stored job's
    document under this name, for `job_object`, `names` and `body_paths`."""
    notes: tuple[str, ...] = ()
    """What the user should know of the numbers that were chosen: the job's first events."""


_TOP = (
    "model",
    "training_file",
    "validation_file",
    "method",
    "suffix",
    "seed",
    "metadata",
    "integrations",
    "hyperparameters",
)
_OURS = ("agent", "guardrails", "training", "audit", "data")
_SECTIONS: dict[str, tuple[str, ...]] = {
    "supervised": ("hyperparameters", *_OURS),
    "dpo": ("hyperparameters", "loss", "patience", *_OURS),
    "reinforcement": ("grader", "hyperparameters", "tools", "max_episode_steps", "response_format", *_OURS),
}
_MAX_SEED = 2**31 - 1
_MAX_PAIRS, _MAX_KEY, _MAX_VALUE = 16, 64, 512

Files = Callable[[str, str], str]
"""(file id, field that names it) → the name of a file with that content in the job's `base_dir`, made there if need be;
raises UserError for a file that is unknown, another project's, or of another purpose."""


def job_from_body(
    body: Mapping[str, Any],
    *,
    base_dir: Path,
    files: Files,
    resolve_model: Callable[[str], str],
    rules: BodyRules = BodyRules(),
    draw_seed: Callable[[], int] = lambda: secrets.randbelow(_MAX_SEED + 1),
) -> ApiJob:
    """The job that a create body asks for; its files are looked at only to count their rows.

    `resolve_model` gives the model that a name stands for, operators' aliases included, or raises UserError. Raises
    UserError whose `param` is a path in the body: the caller answers 400. The rest of the checks are `check_job`'s, and
    `error_in_body(error, body, base_dir)` puts what they find into the words of the body.
    """
    check_known(body, list(_TOP), "")
    model = _text(body, "model", "the name of the model to train")
    check_model_name(model)
    asked = _method(body)
    _refuse_integrations(body.get("integrations"))
    seed, metadata = _seed(body.get("seed"), draw_seed), _metadata(body.get("metadata"))
    data, rows = _named_files(body, asked, base_dir, files, rules)
    settings = translate(
        asked.kind,
        _mapping(asked.section, "hyperparameters", f"method.{asked.kind}"),
        rows=rows,
        training=_mapping(asked.section, "training", f"method.{asked.kind}"),
        param=asked.hyperparameters,
    )
    document = {
        "model": resolve_model(model),
        "suffix": body.get("suffix"),
        "seed": seed,
        "metadata": metadata,
        "method": _method_of_job(asked, settings),
        "data": data,
        **_job_sections(asked, settings, files),
    }
    try:
        spec = parse_job(document, source="request body")
        _check_output_json(spec)
        check_remote(spec, judge_urls=rules.judge_urls)
    except UserError as error:
        raise error_in_body(error, body, base_dir) from None
    return ApiJob(spec=spec, request=_request(body, asked, settings, spec), notes=settings.notes)


def count_rows(path: Path) -> int:
    """Lines of a JSONL file that are not blank; memory does not grow with the length of a line."""
    rows, is_blank = 0, True
    with path.open("rb") as file:
        while piece := file.readline(1 << 16):
            is_blank = is_blank and not piece.strip(b" \t\r\n\xef\xbb\xbf")
            if piece.endswith(b"\n"):
                rows, is_blank = rows + (not is_blank), True
    return rows + (not is_blank)


class _Asked(NamedTuple):
    """A body's method."""

    kind: MethodType
    section: Mapping[str, Any]
    """`method.<kind>`, empty where the body has none."""
    hyperparameters: str
    """Where they stand."""


def _method(body: Mapping[str, Any]) -> _Asked:
    method, old = body.get("method"), body.get("hyperparameters")
    if method is None:
        if old is None:
            return _Asked("supervised", {}, "method.supervised.hyperparameters")
        return _Asked("supervised", {"hyperparameters": _mapping(body, "hyperparameters")}, "hyperparameters")
    method = _mapping(body, "method")
    check_known(method, ["type", *_SECTIONS], "method")
    kind = method.get("type")
    if kind not in ("supervised", "dpo", "reinforcement"):
        got = "missing" if kind is None else repr(kind)[:60]
        raise _wrong("method.type", f"is {got}", f"one of {', '.join(_SECTIONS)}")
    if old is not None:
        step = f"put them under `method.{kind}.hyperparameters`"
        raise _wrong("hyperparameters", "stands beside `method`", f"only one of the two; {step}")
    for other in _SECTIONS.keys() - {kind}:
        if method.get(other) is not None:
            raise _wrong(f"method.{other}", f"is given, but `method.type` is {kind!r}", f"only `method.{kind}`")
    section = _mapping(method, kind, "method")
    check_known(section, list(_SECTIONS[kind]), f"method.{kind}")
    if kind == "reinforcement":
        _check_grader_shape(section.get("grader"))
    return _Asked(kind, section, f"method.{kind}.hyperparameters")


def _check_grader_shape(grader: Any) -> None:
    param = "method.reinforcement.grader"
    if grader is None:
        raise UserError(
            f"`{param}` is missing; reinforcement needs what scores an answer, for example "
            '{"type": "string_check", …}. Add one (docs/graders.md)',
            param=param,
            code="grader_missing",
        )
    if not isinstance(grader, Mapping):
        raise _wrong(param, f"is a {type(grader).__name__}", "an object with `type`")
    parts = grader.get("graders")
    if grader.get("type") == "multi" and (isinstance(parts, list) or isinstance(_of(parts, "type"), str)):
        got = "a list" if isinstance(parts, list) else "one grader, as the SDK's type has it"
        example = '{"exact": {"type": "string_check", …}, "style": {…}}'
        raise _wrong(f"{param}.graders", f"is {got}", f"an object from name to grader, {example}")


def _of(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _named_files(
    body: Mapping[str, Any], asked: _Asked, base_dir: Path, files: Files, rules: BodyRules
) -> tuple[dict[str, Any], int]:
    """The `data` section of the job, and the rows of the training file."""
    train, held_out = FILES[asked.kind]
    training_file = _text(body, "training_file", "the id of an uploaded file, purpose `fine-tune`")
    validation_file = body.get("validation_file")
    if validation_file is not None:
        validation_file = _text(body, "validation_file", "the id of an uploaded file, or null")
    elif asked.kind == "reinforcement":
        raise UserError(
            "`validation_file` is missing; reinforcement chooses its best checkpoint by items that it does not train "
            "on. Upload some as a second file, and give its id",
            param="validation_file",
            code="missing_required_parameter",
        )
    data: dict[str, Any] = {train: files(training_file, "training_file")}
    rows = _enough_rows(base_dir / data[train], "Training", "training_file", rules)
    if validation_file is not None:
        data[held_out] = files(validation_file, "validation_file")
        _enough_rows(base_dir / data[held_out], "Validation", "validation_file", rules)
    under = f"method.{asked.kind}.data"
    more = _mapping(asked.section, "data", f"method.{asked.kind}")
    check_known(more, ["test", "splits"], under)
    if more.get("test") is not None:
        data["test"] = files(_text(more, "test", "a file's id", under), f"{under}.test")
    splits = _mapping(more, "splits", under)
    data["splits"] = {
        name: files(_text(splits, name, "a file's id", f"{under}.splits"), f"{under}.splits.{name}") for name in splits
    }
    return data, rows


def _enough_rows(path: Path, which: str, param: str, rules: BodyRules) -> int:
    rows = count_rows(path)
    if rows < rules.min_examples:
        raise UserError(
            f"{which} file has {rows} example(s), but must have at least {rules.min_examples} examples. Add rows, one "
            "JSON object a line",
            param=param,
            code="invalid_n_examples",
        )
    return rows


def _job_sections(asked: _Asked, settings: Settings, files: Files) -> dict[str, Any]:
    """`agent`, `guardrails`, `training` and `audit` of the job, as far as the body gives them."""
    under = f"method.{asked.kind}"
    sections: dict[str, Any] = {name: asked.section[name] for name in _OURS if asked.section.get(name) is not None}
    sections.pop("data", None)
    if settings.training:
        sections["training"] = {**_mapping(asked.section, "training", under), **settings.training}
    agent = dict(_mapping(asked.section, "agent", under))
    if agent.get("demos") is not None:
        agent["demos"] = files(_text(agent, "demos", "a file's id", f"{under}.agent"), f"{under}.agent.demos")
    if asked.kind == "reinforcement":
        agent |= _agent_rft(asked.section, agent, under)
    return {**sections, "agent": agent}


def _agent_rft(section: Mapping[str, Any], agent: Mapping[str, Any], under: str) -> dict[str, Any]:
    """What Agent RFT's own fields set in `agent`."""
    if "tools" in agent:
        raise _wrong(f"{under}.agent.tools", "is given", f"tools under `{under}.tools`, OpenAI's place for them")
    tools = section.get("tools")
    given: dict[str, Any] = {"tools": [] if tools is None else tools}
    steps = section.get("max_episode_steps")
    if steps is None:
        return given
    limits = _mapping(agent, "limits", f"{under}.agent")
    if "max_turns" in limits:
        got = f"is {steps!r} beside `agent.limits.max_turns`, which is the same setting"
        raise _wrong(f"{under}.max_episode_steps", got, "only one of them")
    return {**given, "limits": {**limits, "max_turns": steps}}


def _method_of_job(asked: _Asked, settings: Settings) -> dict[str, Any]:
    section: dict[str, Any] = {"hyperparameters": settings.hyperparameters}
    if asked.kind == "reinforcement":
        section["grader"] = asked.section["grader"]
        given = asked.section.get("response_format")
        section["response_format"] = False if given is None else given
    for name in ("loss", "patience"):
        if asked.section.get(name) is not None:
            section[name] = asked.section[name]
    return {"type": asked.kind, asked.kind: section}


def _request(body: Mapping[str, Any], asked: _Asked, settings: Settings, spec: JobSpec) -> dict[str, Any]:
    dumped = spec.model_dump(mode="json")
    read = {**dumped, **dumped["method"][asked.kind], "tools": dumped["agent"]["tools"]}
    section = {**shown(asked.section, read), "hyperparameters": settings.shown}
    if asked.kind == "reinforcement":
        section["grader"] = {"name": read["grader"]["name"], **section["grader"]}
        section = {"tools": [], "max_episode_steps": None, "response_format": None, **section}
    return {
        "model": body["model"],
        "training_file": body["training_file"],
        "validation_file": body.get("validation_file"),
        "suffix": spec.suffix,
        "seed": spec.seed,
        "metadata": dict(spec.metadata),
        "integrations": [],
        "method": {"type": asked.kind, asked.kind: section},
    }


def _check_output_json(spec: JobSpec) -> None:
    reinforcement = spec.method.reinforcement
    if reinforcement is None or reinforcement.response_format is not False:
        return
    graders = {"method.reinforcement.grader": reinforcement.grader}
    if spec.audit and spec.audit.grader is not None:
        graders["audit.grader"] = spec.audit.grader
    check_output_json(graders)


def _seed(given: Any, draw: Callable[[], int]) -> int:
    if given is None:
        return draw()
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= _MAX_SEED:
        raise _wrong("seed", f"is {str(given)[:40]!r}", f"a whole number from 0 to {_MAX_SEED}, or null for any")
    return given


def _metadata(given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise _wrong("metadata", f"is a {type(given).__name__}", "an object from text to text")
    if len(given) > _MAX_PAIRS:
        raise _wrong("metadata", f"has {len(given)} pairs", f"at most {_MAX_PAIRS}")
    for key, value in given.items():
        if not 1 <= len(key) <= _MAX_KEY:
            raise _wrong("metadata", f"has a key of {len(key)} characters", f"keys of 1 to {_MAX_KEY}")
        if not isinstance(value, str):
            raise _wrong(f"metadata.{key}", f"is a {type(value).__name__}", "text")
        if len(value) > _MAX_VALUE:
            raise _wrong(f"metadata.{key}", f"has {len(value)} characters", f"at most {_MAX_VALUE}")
    return dict(given)


def _refuse_integrations(given: Any) -> None:
    if given in (None, []):
        return
    raise UserError(
        "`integrations` is given, but this server sends metrics nowhere; expected none. Leave it out, and read the "
        "job's events of type `metrics`, GET /v1/fine_tuning/jobs/{id}/metrics or the result file",
        param="integrations",
        code="unsupported_option",
    )


def _text(section: Mapping[str, Any], key: str, what: str, under: str = "") -> str:
    param = f"{under}.{key}" if under else key
    if section.get(key) is None:
        raise UserError(
            f"`{param}` is missing; expected {what}. Add it", param=param, code="missing_required_parameter"
        )
    if not isinstance(section[key], str) or not section[key]:
        raise _wrong(param, f"is a {type(section[key]).__name__}" if section[key] else "is empty", what)
    return section[key]


def _mapping(section: Mapping[str, Any], key: str, under: str = "") -> Mapping[str, Any]:
    """A section of a body; empty where it is absent or null."""
    value = section.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        param = f"{under}.{key}" if under else key
        raise _wrong(param, f"is a {type(value).__name__}", "an object")
    return value


def _wrong(param: str, got: str, expected: str) -> UserError:
    return UserError(f"`{param}` {got}; expected {expected}. Change it", param=param, code="invalid_value")
