"""What a job may bind under `agent.tools`, and how bindings become live tools."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from agentrft.net.policy import NetworkPolicy
from agentrft.tools.docs import ToolDoc
from agentrft.tools.guardrails import Policy
from agentrft.tools.http_tool import HttpBinding, HttpSource
from agentrft.tools.limits import ToolLimits
from agentrft.tools.mcp_tool import McpBinding, McpSource
from agentrft.tools.present import Shaping
from agentrft.tools.python_files import PythonFiles
from agentrft.tools.python_tool import PythonBinding, load_python_source
from agentrft.tools.source import ToolSource
from agentrft.tools.toolset import JobTools


def _kind(binding: Any) -> Any:
    """OpenAI's bindings have no `type`: they are HTTP tools."""
    return binding.get("type", "http") if isinstance(binding, dict) else getattr(binding, "type", None)


ToolBinding = Annotated[
    Annotated[HttpBinding, Tag("http")] | Annotated[McpBinding, Tag("mcp")] | Annotated[PythonBinding, Tag("python")],
    Discriminator(_kind),
]
"""What a job may write under `agent.tools`."""

AnyBinding = HttpBinding | McpBinding | PythonBinding


async def open_toolset(
    bindings: Sequence[AnyBinding],
    base_dir: Path,
    limits: ToolLimits | None = None,
    *,
    policy: Policy | None = None,
    shaping: Shaping | None = None,
    docs: Mapping[str, ToolDoc] | None = None,
    network: NetworkPolicy | None = None,
    monotonic: Callable[[], float] = time.perf_counter,
) -> JobTools:
    """The tools of a job; files are relative to `base_dir` and run once, MCP servers are asked for their tools, now.

    `limits` defaults to `ToolLimits()`, `network` to what a person at the keyboard may reach; `docs` are other words
    for tools than their own. Raises UserError (`param` begins with `agent.tools.<position>`) for a binding that is
    unusable and for two tools of one name.
    """
    network = network or NetworkPolicy.local()
    http = {f"agent.tools.{k}": one for k, one in enumerate(bindings) if isinstance(one, HttpBinding)}
    files = PythonFiles(base_dir)
    sources: dict[str, ToolSource] = {}
    try:
        for position, binding in enumerate(bindings):
            param = f"agent.tools.{position}"
            if isinstance(binding, PythonBinding):
                sources[param] = load_python_source(binding, files, param=f"{param}.target")
            elif isinstance(binding, McpBinding):
                sources[param] = await _mcp_source(binding, base_dir, param, network)
            elif param == next(iter(http)):
                sources[param] = HttpSource(http, network)  # all of them: tools of one server share its connections
        return JobTools(sources, limits, policy, shaping, docs=docs, monotonic=monotonic)
    except BaseException:
        for source in sources.values():
            await source.close()
        raise


async def _mcp_source(binding: McpBinding, base_dir: Path, param: str, network: NetworkPolicy) -> McpSource:
    open_client = None
    if binding.server_url is not None and importlib.util.find_spec("mcp") is not None:
        from agentrft.tools.mcp_guard import guarded_client  # needs `agentrft[mcp]`; `load` says so where it is missing

        open_client = guarded_client(network)
    return await McpSource.load(binding, base_dir, param=param, open_http_client=open_client)
