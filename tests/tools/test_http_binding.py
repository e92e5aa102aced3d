"""`http` bindings and sources: what a job may write, which tools an episode gets, and what nobody sees."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from agentrft.errors import ToolFault, UserError
from agentrft.net.policy import NetworkPolicy
from agentrft.net.secrets import WITH_SECRETS
from agentrft.tools.http_binding import HttpBinding
from agentrft.tools.http_tool import HttpSource
from agentrft.tools.source import Hints
from agentrft.types import Item, Message, ToolSpec

HEADERS = {"Authorization": "Bearer canary-5f1d0c9e", "X-Team": "blue"}
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}}
LISTED = ToolSpec(name="search", description="Find.", parameters=SCHEMA)
ITEM = Item(id="row-7", messages=(Message(role="user", content="q"),), tools=(LISTED,), fields={"answer": 4})


async def test_which_tools_an_episode_gets():
    own = HttpBinding(name="own", server_url="http://h/x", description="Mine.", parameters=SCHEMA)
    listed = HttpBinding(name="search", server_url="http://h/x", parameters={"type": "object", "properties": {}})
    bare = HttpBinding(name="bare", server_url="http://h/x")
    source = HttpSource({"agent.tools.0": own, "agent.tools.1": listed, "agent.tools.2": bare}, NetworkPolicy.local())
    assert source.names == ("own", "search", "bare")
    assert [(spec.name, spec.description) for spec in source.specs] == [("own", "Mine."), ("search", "")]
    assert source.hints("own") == Hints(writes=None, repeatable=True)
    assert source.can_snapshot is False
    session = await source.open(ITEM, "trace_9", 5.0)
    assert [tool.spec for tool in session.tools] == [own.spec, LISTED]  # the row's words before the binding's
    assert await session.state_hash() is None
    for ask in (session.snapshot(), session.restore(None)):
        with pytest.raises(ToolFault, match="HTTP tools have no snapshots"):
            await ask
    await session.close()
    await session.close()


@pytest.mark.parametrize("value", [float("nan"), object(), {1}])
async def test_an_item_that_is_not_json_is_a_fault(value):
    source = HttpSource({"p": HttpBinding(name="search", server_url="http://h/x")}, NetworkPolicy.local())
    with pytest.raises(ToolFault, match="item r cannot be sent to HTTP tools: "):
        await source.open(Item(id="r", messages=(), fields={"odd": value}), "trace_9", 5.0)


def test_bindings_that_cannot_work_are_refused():
    binding = HttpBinding(name="search", server_url="http://10.0.0.5:9000/x?key=hush")
    with pytest.raises(UserError) as refused:
        HttpSource({"agent.tools.0": binding}, NetworkPolicy.public())
    assert refused.value.message == (
        "tool 'search': 10.0.0.5:9000 is to be asked over http, expected https; operators can list it; "
        "give another `server_url`"
    )
    assert (refused.value.param, refused.value.code) == ("agent.tools.0.server_url", "invalid_tool")
    HttpSource({"agent.tools.0": binding}, NetworkPolicy.public(allow=["10.0.0.5:9000"]))
    with pytest.raises(UserError, match="two HTTP tools are named 'search'") as twice:
        HttpSource({"agent.tools.0": binding, "agent.tools.1": binding}, NetworkPolicy.local())
    assert twice.value.param == "agent.tools.1.name"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"server_url": "http://u:hush@h/"}, "expected an address such as"),
        ({"server_url": None}, "expected an address such as"),
        ({"name": "no spaces"}, "String should match pattern"),
        ({"name": ""}, "String should match pattern"),
        ({"headers": {"Idempotency-KEY": "hush"}}, "got the header 'Idempotency-KEY', which is made for each call"),
        ({"headers": {"Host": "hush"}}, "got the header 'Host', which the request itself sets"),
        ({"headers": {"A": ["hush"]}}, "the value of 'A' cannot be sent"),
        ({"description": "x"}, "`description` lacks `parameters`"),
        ({"max_concurrency": 0}, "greater than or equal to 1"),
        ({"timeout_s": 601}, "less than or equal to 600"),
        ({"url": "hush"}, "Extra inputs are not permitted"),
        ({"type": "python"}, "Input should be 'http'"),
    ],
    ids=str,
)
def test_bad_bindings(fields, said):
    with pytest.raises(ValidationError, match=re.escape(said)) as caught:
        HttpBinding.model_validate({"name": "search", "server_url": "http://h/x", **fields})
    assert "hush" not in str(caught.value)


def test_header_values_are_shown_nowhere():
    binding = HttpBinding(name="search", server_url="http://h/x", headers=HEADERS)
    source = HttpSource({"p": binding}, NetworkPolicy.local())
    for shown in (repr(binding), str(binding.model_dump()), binding.model_dump_json(), repr(source)):
        assert "canary" not in shown
    assert HttpBinding.model_validate(binding.model_dump(context=WITH_SECRETS)) == binding
