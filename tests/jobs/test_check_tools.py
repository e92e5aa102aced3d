"""Static checks of tools: what bindings, rows, demonstrations and guardrails must agree on before a job is made."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentrft.data.rows import Demonstration
from agentrft.errors import UserError
from agentrft.jobs.check import CheckReport, check_job
from agentrft.jobs.check_tools import (
    BoundTools,
    bound_tools,
    check_calls,
    check_described,
    check_guardrails,
    check_row_schemas,
)
from agentrft.jobs.load import load_job, parse_job
from agentrft.tools import Guardrails
from agentrft.tools.http_binding import HttpBinding
from agentrft.types import Item, Message, ToolCall, ToolSpec

MakeJob = Callable[..., Path]
SERVER = Path(__file__).parents[1] / "tools" / "mcp_servers" / "act_server.py"
STRING = {"type": "string"}


def spec(name: str, *arguments: str, **more: Any) -> ToolSpec:
    schema = {"type": "object", "properties": dict.fromkeys(arguments, STRING), **more}
    return ToolSpec(name=name, description=name, parameters=schema)


SPECS = (
    spec("search", "query", "page"),
    spec("get_order", "order_id"),
    spec("refund", "order_id", "amount", "preview", additionalProperties=False),
)
SHOP = BoundTools(names=("search", "get_order", "refund", "fetch"), specs=SPECS)
"""`fetch` is described by rows only."""


def checked(**guardrails: Any) -> list[str]:
    return check_guardrails(Guardrails.model_validate(guardrails), SHOP)


def item(line: int, *tools: ToolSpec) -> Item:
    return Item(id=f"row-{line}", messages=(), tools=tools, line=line)


# ---- guardrails


def test_rules_that_fit_are_no_reason_to_speak() -> None:
    assert check_guardrails(None, SHOP) == []
    assert checked() == []
    rules = {
        "*": {"max_calls": 9},
        "search": {"effect": "read", "args": {"query": {"pattern": "^[a-z]"}}, "deny_args": {"page": ["x"]}},
        "refund": {
            "require_before": ["get_*"],
            "forbid_after": ["refund"],
            "approval": {"production": "ask"},
            "args": {"order_id": {"seen_in": ["get_order", "prompt"]}},
        },
        "fetch": {"args": {"url": {"starts_with": "https://"}}},
    }
    assert checked(tools=rules, deny=["fet??"]) == []


@pytest.mark.parametrize("approval", ["ask", {"sandbox": "ask"}, {"sandbox": "ask", "production": "allow"}])
def test_nobody_can_be_asked_while_training_but_an_approver(approval: Any) -> None:
    with pytest.raises(UserError, match="nobody is there to be asked") as caught:
        checked(tools={"*": {}, "ref*": {"approval": approval}})
    assert (caught.value.param, caught.value.code) == ("guardrails.tools.refund.approval", "invalid_guardrails")
    assert "guardrails.approver" in caught.value.message
    assert checked(tools={"*": {}, "ref*": {"approval": approval}}, approver="guards.py:approve") == []


@pytest.mark.parametrize("approval", ["dry_run", {"production": "dry_run"}, {"sandbox": "dry_run"}])
def test_a_preview_needs_the_argument_that_makes_one(approval: Any) -> None:
    with pytest.raises(UserError, match="expected `dry_run_argument`") as caught:
        checked(tools={"*": {}, "refund": {"approval": approval}})
    assert (caught.value.param, caught.value.code) == ("guardrails.tools.refund.dry_run_argument", "invalid_guardrails")
    # What several entries say of a tool holds together.
    assert checked(tools={"*": {}, "refund": {"approval": approval}, "ref*": {"dry_run_argument": "preview"}}) == []


@pytest.mark.parametrize(
    "rules",
    [
        {"args": {"orderid": {"minimum": 1}}},
        {"deny_args": {"orderid": ["x"]}},
        {"dry_run_argument": "orderid"},
    ],
)
def test_a_rule_for_an_argument_that_a_tool_does_not_take(rules: Any) -> None:
    words = "refund takes order_id, amount, preview"
    with pytest.raises(UserError, match=f"rule for the argument 'orderid', but {words}") as caught:
        checked(tools={"*": {}, "refund": rules})
    assert (caught.value.param, caught.value.code) == ("guardrails.tools.refund.args", "invalid_guardrails")
    # What only rows describe is not known here.
    assert checked(tools={"*": {}, "fetch": rules}) == []


@pytest.mark.parametrize(
    ("guardrails", "where", "glob"),
    [
        ({"deny": ["admin_*"]}, "deny", "admin_*"),
        ({"tools": {"*": {}, "Refund": {}}}, "tools", "Refund"),
        ({"tools": {"*": {}, "refund": {"require_before": ["getorder"]}}}, "tools.refund.require_before", "getorder"),
        ({"tools": {"*": {}, "refund": {"forbid_after": ["close"]}}}, "tools.refund.forbid_after", "close"),
        (
            {"tools": {"*": {}, "refund": {"args": {"order_id": {"seen_in": ["orders", "prompt"]}}}}},
            "tools.refund.args.order_id.seen_in",
            "orders",
        ),
    ],
)
def test_names_that_match_no_tool_are_told(guardrails: Any, where: str, glob: str) -> None:
    (warning,) = checked(**guardrails)
    assert f"guardrails: {where} names {glob!r}, which matches no tool of the job" in warning
    assert "(search, get_order, refund, fetch)" in warning


def test_tools_that_no_entry_matches_are_told() -> None:
    (warning,) = checked(tools={"search": {}, "get_*": {}})
    assert "no entry of `tools` matches refund, fetch, so calls of it are rejected" in warning
    assert checked(tools={"search": {}, "get_*": {}}, unmatched="allow") == []


def test_a_job_without_tools_needs_no_rules() -> None:
    nothing = BoundTools(names=(), specs=())
    assert check_guardrails(Guardrails(), nothing) == []
    (warning,) = check_guardrails(Guardrails.model_validate({"deny": ["x"]}), nothing)
    assert warning.endswith("(none)")


# ---- who describes a tool


def test_a_tool_that_nothing_describes_is_named_with_its_row() -> None:
    rows = [item(1, spec("fetch", "url")), item(2), item(3)]
    with pytest.raises(UserError, match=r"train\.jsonl, line 2: nothing describes the tool 'fetch'") as caught:
        check_described(rows, SHOP, "train.jsonl")
    assert (caught.value.param, caught.value.code) == ("agent.tools", "invalid_tool")
    assert "`parameters`" in caught.value.message
    check_described(rows[:1], SHOP, "train.jsonl")
    check_described([], SHOP, "train.jsonl")
    check_described(rows, BoundTools(names=("search",), specs=SPECS[:1]), "train.jsonl")


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        (ToolSpec(name="fetch", description="", parameters={"type": "strnig"}), "not a valid JSON Schema"),
        (spec("fetch", a="b", required="url"), "not a valid JSON Schema"),
        (
            ToolSpec(
                name="fetch", description="", parameters={"type": "object", "properties": {"a": {"pattern": "("}}}
            ),
            "not a valid JSON Schema",
        ),
        (spec("refund", "order", "amount"), "the row describes the argument 'order' of the tool 'refund'"),
    ],
)
def test_a_row_with_a_schema_that_cannot_work(tool: ToolSpec, words: str) -> None:
    rows = [item(1), item(2, spec("search", "query"), tool), item(3, tool)]
    with pytest.raises(UserError) as caught:
        check_row_schemas(rows, SHOP, "train.jsonl")
    assert "train.jsonl, line 2: " in caught.value.message
    assert words in caught.value.message
    assert (caught.value.param, caught.value.code) == ("agent.tools", "invalid_tool")


def test_a_row_may_describe_a_tool_in_its_own_way() -> None:
    fewer, other = spec("refund", "order_id"), spec("search", "text")  # `search` takes what else is given
    check_row_schemas([item(1, fewer), item(2, other, spec("fetch", "url"))], SHOP, "train.jsonl")


# ---- demonstrations


def shown(tools: Sequence[ToolSpec], *calls: tuple[str, str]) -> list[Demonstration]:
    made = tuple(ToolCall(id="c", name=name, arguments=arguments) for name, arguments in calls)
    messages = (Message(role="user", content="?"), Message(role="assistant", tool_calls=made))
    return [Demonstration(id="d", messages=messages, tools=tuple(tools), line=7)]


@pytest.mark.parametrize(
    ("tools", "call", "code", "words"),
    [
        ([], ("find", "{}"), "unknown_tool", "'find', which the job does not bind; expected one of: fetch, get_order"),
        ([], ("search", '{"query": 3}'), "invalid_demonstration", "query: expected string, got 3"),
        ([spec("fetch", "url", required=["url"])], ("fetch", "{}"), "invalid_demonstration", "missing url"),
        ([spec("search", "text", required=["text"])], ("search", '{"query": "a"}'), "invalid_demonstration", "text"),
    ],
)
def test_a_demonstration_must_not_teach_a_call_that_fails(
    tools: list[ToolSpec], call: tuple[str, str], code: str, words: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_calls(shown(tools, call), SHOP, Path("demos.jsonl"))
    assert "demos.jsonl, line 7: the demonstration calls" in caught.value.message
    assert words in caught.value.message
    assert (caught.value.param, caught.value.code) == ("data.demonstrations", code)


def test_demonstrations_that_would_work() -> None:
    check_calls(shown([], ("search", '{"query": "a"}'), ("fetch", '{"whatever": 1}')), SHOP, Path("demos.jsonl"))
    check_calls(shown([spec("fetch", "url")], ("fetch", '{"url": "a"}')), SHOP, Path("demos.jsonl"))


# ---- bindings as jobs write them

JOB = """\
model: m
data: {train: a.jsonl}
agent:
  tools:
    - name: search
      server_url: http://127.0.0.1:8000/search
      headers: {Authorization: Bearer secret-7f3a}
    - {type: python, target: "tools.py:look"}
    - type: mcp
      server_label: notes
      command: [python, server.py]
"""


def test_bindings_as_openai_writes_them_are_http(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    spec, _ = load_job(tmp_path / "job.yaml")
    assert [binding.type for binding in spec.agent.tools] == ["http", "python", "mcp"]
    (binding, *_) = spec.agent.tools
    assert isinstance(binding, HttpBinding)
    assert binding.headers["Authorization"].get_secret_value() == "Bearer secret-7f3a"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("headers:", "heders:", ["line 7", "unknown key `heders`", "`headers`?"]),
        ("server_url:", "url:", ["line 6", "unknown key `url`", "server_url"]),
        ("server_label:", "label:", ["line 10", "unknown key `label`", "server_label"]),
        ('target: "tools', 'taget: "tools', ["line 8", "unknown key `taget`", "`target`?"]),
        ("type: mcp", "type: mpc", ["line 9", "mpc", "mcp"]),
        ("http://", "ftp://", ["line 6", "http"]),
        ("- name: search", "- name: find it", ["line 5", "name"]),
        ("Bearer secret-7f3a", "{token: secret-7f3a}", ["line 7"]),
    ],
)
def test_mistakes_in_bindings_are_named_by_their_lines(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in JOB
    (tmp_path / "job.yaml").write_text(JOB.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_job(tmp_path / "job.yaml")
    for word in words:
        assert word in caught.value.message
    assert str(caught.value.param).startswith("agent.tools.")
    assert "secret-7f3a" not in caught.value.message


# ---- bindings of every kind, live


def job_with(*tools: Any, **more: Any) -> Any:
    return parse_job({"model": "m", "data": {}, "agent": {"tools": list(tools)}, **more})


async def test_what_every_kind_of_binding_offers(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text('def look(word: str) -> str:\n    """Look."""\n    return word\n')
    schema = {"type": "object", "properties": {"q": STRING}}
    bound = await bound_tools(
        job_with(
            {"name": "fetch", "server_url": "http://127.0.0.1:9/fetch"},
            {"name": "find", "server_url": "http://127.0.0.1:9/find", "description": "Find.", "parameters": schema},
            {"type": "mcp", "server_label": "lab", "command": [sys.executable, str(SERVER), str(tmp_path)]},
            {"type": "python", "target": "tools.py:look"},
        ),
        tmp_path,
    )
    assert bound.names == ("fetch", "find", "act", "look")
    assert [tool.name for tool in bound.specs] == ["find", "act", "look"]


@pytest.mark.parametrize(
    ("tool", "param", "code"),
    [
        ({"type": "mcp", "server_label": "lab", "command": ["no-such-program"]}, "agent.tools.0", "tool_unreachable"),
        (
            {"type": "mcp", "server_label": "lab", "command": ["python", str(SERVER), "."], "allowed_tools": ["find"]},
            "agent.tools.0",
            "tool_not_found",
        ),
        ({"name": "find", "server_url": "http://169.254.169.254/"}, "agent.tools.0.server_url", "invalid_tool"),
        (
            {"name": "find", "server_url": "http://127.0.0.1:9/", "parameters": {"type": "strnig"}},
            "agent.tools",
            "invalid_tool",
        ),
    ],
)
async def test_a_binding_that_cannot_work_is_named(tool: Any, param: str, code: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        await bound_tools(job_with(tool), tmp_path)
    assert (caught.value.param, caught.value.code) == (param, code)


async def test_guardrails_that_cannot_be_loaded_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        await bound_tools(job_with(guardrails={"approver": "nowhere.py:approve"}), tmp_path)
    assert caught.value.param == "guardrails.approver"


# ---- in the report of a job


def report_of(job: Path) -> CheckReport:
    return check_job(*load_job(job))


FETCH = {"name": "fetch", "server_url": "http://127.0.0.1:9/fetch"}
LOOK = {"type": "python", "target": "tools.py:look"}


def test_a_job_whose_rows_list_nothing_needs_described_tools(make_job: MakeJob, tmp_path: Path) -> None:
    report = report_of(make_job({"agent.tools": [LOOK, FETCH]}))
    messages = [problem.message for problem in report.problems]
    assert len(messages) == 3  # one for each split
    assert all("line 1: nothing describes the tool 'fetch'" in message for message in messages)
    described = {"description": "Fetch.", "parameters": {"type": "object", "properties": {"url": STRING}}}
    report = report_of(make_job({"agent.tools": [LOOK, FETCH | described]}))
    assert report.problems == []
    assert dict(report.facts)["tools"] == "look, fetch"


def test_rows_may_describe_what_bindings_do_not(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job({"agent.tools": [LOOK, FETCH], "data.demonstrations": None})
    parameters = {"type": "object", "properties": {"url": STRING}}
    listed = [{"type": "function", "function": {"name": "fetch", "description": "Get.", "parameters": parameters}}]
    for split in ("train", "validation", "test"):
        file = tmp_path / f"{split}.jsonl"
        rows = [json.loads(line) | {"tools": listed} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert report_of(job).problems == []


def test_guardrails_are_checked_with_the_job(make_job: MakeJob) -> None:
    report = report_of(make_job({"guardrails": {"deny": ["admin_*"], "tools": {"find": {}, "look": {}}}}))
    assert report.problems == []
    found = [warning for warning in report.warnings if warning.startswith("guardrails: ")]
    assert [warning.split(",")[0] for warning in found] == [
        "guardrails: deny names 'admin_*'",
        "guardrails: tools names 'find'",
    ]
    (problem,) = report_of(make_job({"guardrails": {"tools": {"look": {"approval": "ask"}}}})).problems
    assert problem.param == "guardrails.tools.look.approval"


@pytest.mark.parametrize("guardrails", [{"deny": ["peek"]}, {"tools": {"look": {}}}])
def test_a_denied_tool_is_no_undescribed_one(make_job: MakeJob, guardrails: Any) -> None:
    peek = 'def peek(word: str) -> str:\n    """Peek."""\n    return word\n'
    tools = [LOOK, {"type": "python", "target": "peek.py:peek"}]
    assert report_of(make_job({"agent.tools": tools, "guardrails": guardrails}, peek__py=peek)).problems == []


def test_a_tool_that_takes_nothing_has_no_arguments_to_rule() -> None:
    nothing = BoundTools(names=("now",), specs=(spec("now"),))
    with pytest.raises(UserError, match="rule for the argument 'zone'"):
        check_guardrails(
            Guardrails.model_validate({"tools": {"now": {"args": {"zone": {"one_of": ["UTC"]}}}}}), nothing
        )
