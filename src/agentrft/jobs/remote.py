"""What a job document from the network may not say: whatever would run code, read files or use keys of this machine.

`create_body` asks here before a body becomes a job, so that a client of the API can do no more than the API offers.
Which addresses may be asked is decided elsewhere, at the socket: `net.policy`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from agentrft.errors import UserError
from agentrft.graders import AnySpec, LabelModelSpec, MultiSpec, PythonSpec, ScoreModelSpec, TextSimilaritySpec
from agentrft.jobs.names import is_trained
from agentrft.jobs.spec import JobSpec
from agentrft.tools import PythonBinding
from agentrft.tools.mcp_binding import McpBinding

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}", re.ASCII)
_BY_THE_OPERATOR = "ask the server's operator for it, or run the job with `agentrft run` on that machine"


class _Refusal(NamedTuple):
    param: str
    got: str
    step: str


def check_remote(spec: JobSpec, *, judge_urls: Collection[str] = ()) -> None:
    """Raise UserError (`forbidden_option`) for the first thing in a job that the network may not ask for.

    `judge_urls` are the addresses where graders may ask models, beside the one that the operator has set for all. The
    model is not looked at: `check_model_name` is for its name as it was asked for.
    """
    _raise_first(_in_job(spec, judge_urls))


def check_remote_grader(grader: AnySpec, *, param: str = "grader", judge_urls: Collection[str] = ()) -> None:
    """`check_remote` for a grader alone, as `graders/run` and `graders/validate` get it."""
    _raise_first(_in_grader(grader, param, judge_urls))


def check_model_name(name: str, *, param: str = "model") -> None:
    """Raise UserError unless a name has the form of a known model's, the hub's or a trained model's.

    A folder of this machine is refused, and so is a job's id: whose result a name may mean, `ft:` names say.
    """
    if not name.startswith("ftjob-") and (_PLAIN_NAME.fullmatch(name) or _HUB_NAME.fullmatch(name) or is_trained(name)):
        return
    raise UserError(
        f"model {name[:200]!r} is not taken over the network; expected a name that GET /v1/models lists, `OWNER/MODEL` "
        "of the Hugging Face hub, or `ft:…`. For a folder on the server's machine ask its operator for an alias",
        param=param,
        code="forbidden_option",
    )


def _raise_first(refusals: Iterator[_Refusal]) -> None:
    for param, got, step in refusals:
        raise UserError(
            f"`{param}`: {got} is not taken over the network, because it reaches beyond the API into the server's "
            f"machine; {step}",
            param=param,
            code="forbidden_option",
        )


def _in_job(spec: JobSpec, judge_urls: Collection[str]) -> Iterator[_Refusal]:
    yield from _in_files(spec)
    yield from _in_tools(spec)
    yield from _in_guardrails(spec)
    if spec.method.reinforcement is not None:
        yield from _in_grader(spec.method.reinforcement.grader, "method.reinforcement.grader", judge_urls)
    if spec.audit and spec.audit.grader is not None:
        yield from _in_grader(spec.audit.grader, "audit.grader", judge_urls)
    if target := getattr(spec.training.credit, "target", None) or getattr(spec.training.credit, "rewards", None):
        yield _Refusal("training.credit", f"the code in {target!r}", "name one of the built-in methods of credit")


def _in_files(spec: JobSpec) -> Iterator[_Refusal]:
    named = {f"data.{name}": value for name, value in spec.data if isinstance(value, str)}
    named |= {f"data.splits.{name}": value for name, value in spec.data.splits.items()}
    named |= {"agent.demos": spec.agent.demos} if spec.agent.demos is not None else {}
    for param, file in named.items():
        path = PurePosixPath(file.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or "\0" in file or ":" in path.parts[0]:
            yield _Refusal(param, f"the path {file[:100]!r}", "upload the file, and give its id")


def _in_tools(spec: JobSpec) -> Iterator[_Refusal]:
    for position, binding in enumerate(spec.agent.tools):
        param = f"agent.tools.{position}"
        step = "serve it over HTTP and bind its `server_url`"
        if isinstance(binding, PythonBinding):
            yield _Refusal(param, f"the code in {binding.target!r}", f"{step}, or run the job with `agentrft run`")
        elif isinstance(binding, McpBinding) and binding.command is not None:
            yield _Refusal(f"{param}.command", "a program to start", step)


def _in_guardrails(spec: JobSpec) -> Iterator[_Refusal]:
    if spec.guardrails is None:
        return
    if spec.guardrails.approver:
        step = "use `approval: allow` or `deny` where episodes are played"
        yield _Refusal("guardrails.approver", f"the code in {spec.guardrails.approver!r}", step)
    for position, target in enumerate(spec.guardrails.plugins):
        yield _Refusal(f"guardrails.plugins.{position}", f"the code in {target!r}", "use the built-in rules")
    if spec.guardrails.secrets.env:
        step = "give the form of the secrets under `guardrails.secrets.patterns`"
        yield _Refusal("guardrails.secrets.env", "a variable of the server's environment", step)


def _in_grader(grader: AnySpec, param: str, judge_urls: Collection[str]) -> Iterator[_Refusal]:
    if isinstance(grader, MultiSpec):
        for name, part in grader.graders.items():
            yield from _in_grader(part, f"{param}.graders.{name}", judge_urls)
    elif isinstance(grader, PythonSpec):
        if grader.source_file is not None:
            yield _Refusal(f"{param}.source_file", "a file", "give the code itself as `source`")
        if grader.isolation == "process":
            yield _Refusal(f"{param}.isolation", f"{grader.isolation!r}", "leave it out: the grader runs in a sandbox")
    elif isinstance(grader, ScoreModelSpec | LabelModelSpec):
        yield from _in_judge(param, grader.base_url, grader.api_key_env, judge_urls)
    elif isinstance(grader, TextSimilaritySpec) and grader.embeddings is not None:
        embeddings, where = grader.embeddings, f"{param}.embeddings"
        yield from _in_judge(where, embeddings.base_url, embeddings.api_key_env, judge_urls)


def _in_judge(
    param: str, base_url: str | None, api_key_env: str | None, allowed: Collection[str]
) -> Iterator[_Refusal]:
    if api_key_env is not None:
        step = f"leave it out: keys are the operator's, {_BY_THE_OPERATOR}"
        yield _Refusal(f"{param}.api_key_env", "a variable of the server's environment", step)
    if base_url is not None and base_url.rstrip("/") not in {url.rstrip("/") for url in allowed}:
        known = (
            f"use {', '.join(sorted(allowed))}" if allowed else "leave it out: judges are asked where the operator says"
        )
        yield _Refusal(f"{param}.base_url", "an address that the operator has not listed", known)
