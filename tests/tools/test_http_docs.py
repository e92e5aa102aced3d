"""The example server in `docs/http-tools.md` runs, keeps episodes apart, and bears the same call twice."""

from __future__ import annotations

import re
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

from agentrft.net.policy import NetworkPolicy
from agentrft.protocols import ToolContext
from agentrft.tools.http_binding import HttpBinding
from agentrft.tools.http_tool import HttpSource
from agentrft.types import Item

PAGE = Path(__file__).parents[2] / "docs" / "http-tools.md"
ITEM = Item(id="r", messages=())


async def note(source: HttpSource, trace_id: str, call_id: str, text: str) -> str:
    (tool,) = (await source.open(ITEM, trace_id, 5.0)).tools
    return await tool.call({"text": text}, ToolContext(trace_id=trace_id, call_id=call_id, item=ITEM, deadline_s=5.0))


async def test_the_example_server():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    names = {"__name__": "docs"}
    exec(compile(code, PAGE, "exec"), names)
    names["Tools"].log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), names["Tools"]) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/note"
        schema = {"type": "object", "properties": {"text": {"type": "string"}}}
        source = HttpSource(
            {"agent.tools.0": HttpBinding(name="note", server_url=url, parameters=schema)}, NetworkPolicy.local()
        )
        said = [
            await note(source, "trace_1", "call_1", "a"),
            await note(source, "trace_1", "call_1", "a"),
            await note(source, "trace_1", "call_2", "b"),
            await note(source, "trace_2", "call_3", "a"),
        ]
        await source.close()
        server.shutdown()
        thread.join()
    assert said == ["1 notes", "1 notes", "2 notes", "1 notes"]


def test_every_field_is_explained():
    text = PAGE.read_text()
    assert [name for name in HttpBinding.model_fields if f"`{name}`" not in text and name != "type"] == []
