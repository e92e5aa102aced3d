"""`/fine_tuning/alpha/tool/run`: one call of an HTTP tool, as an episode would make it. Undocumented by OpenAI.

The request is the body that the tool gets, with `server_url` and `headers` beside it; the answer is what the tool
answered, of which clients read `output`. What the model would be shown in place of an output (4xx) stands there, too.
"""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentrft.errors import ToolFault, UserError
from agentrft.jobs.trace import json_safe
from agentrft.net.policy import Forbidden, NetworkPolicy
from agentrft.protocols import ToolContext
from agentrft.server.auth import Caller, allow
from agentrft.server.errors import ApiError
from agentrft.server.graders import item_of
from agentrft.server.state import state_of
from agentrft.tools.http_binding import HttpBinding
from agentrft.tools.http_tool import HttpSource

router = APIRouter(prefix="/fine_tuning/alpha", tags=["Graders"])
Running = Annotated[Caller, Depends(allow("graders:run"))]

TIMEOUT_S = 30.0


class ToolRunRequest(BaseModel):
    """One call, and where it goes."""

    model_config = ConfigDict(hide_input_in_errors=True)

    type: Literal["function_call"] = "function_call"
    name: str
    server_url: str
    headers: dict[str, str] | None = None
    arguments: str | dict[str, Any] = Field(default="{}", description="The arguments object, or its JSON text.")
    item: dict[str, Any] | None = None
    trace_id: str | None = Field(default=None, min_length=1, max_length=200)
    id: str | None = Field(default=None, min_length=1, max_length=200)
    call_id: str | None = Field(default=None, min_length=1, max_length=200)


class ToolRun(BaseModel):
    """What the tool answered."""

    type: Literal["function_call_output"] = "function_call_output"
    id: str
    call_id: str
    output: str
    is_error: bool = Field(
        description="Ours: the tool refused the call (4xx); the model would read `output` all the same."
    )


@router.post("/tool/run", response_model=ToolRun)
async def run_tool(request: Request, body: ToolRunRequest, caller: Running) -> Any:
    """Call the tool once, without retries; 400 with the reason when it gave no usable answer."""
    policy = state_of(request).policy
    binding = _binding(body, policy)
    arguments = _arguments(body.arguments)
    item = item_of(body.item or {})
    trace_id, call_id = body.trace_id or f"trace_{uuid.uuid4()}", body.call_id or f"call_{uuid.uuid4().hex}"
    source = HttpSource({"tool": binding}, policy)
    try:
        session = await source.open(item, trace_id, TIMEOUT_S)
        (tool,) = (tool for tool in session.tools if tool.spec.name == body.name)
        context = ToolContext(trace_id=trace_id, call_id=call_id, item=item, deadline_s=TIMEOUT_S)
        output, is_error = await tool.call(arguments, context), False
    except ValueError as refusal:
        output, is_error = str(refusal), True
    except ToolFault as fault:
        message = f"{fault}; expected an answer with `output`. Start the tool, or mend its address, headers or answer"
        raise ApiError(400, message, param="server_url", code="tool_unreachable") from None
    finally:
        await source.close()
    answer = {
        "id": body.id or f"fc_{uuid.uuid4().hex[:24]}",
        "call_id": call_id,
        "output": output if isinstance(output, str) else output.decode("utf-8", "replace"),
        "is_error": is_error,
    }
    return json_safe(answer)


def _binding(body: ToolRunRequest, policy: NetworkPolicy) -> HttpBinding:
    """The tool as a job would bind it; raises UserError, naming the request's own fields."""
    try:
        binding = HttpBinding(
            name=body.name,
            server_url=body.server_url,
            headers=body.headers or {},  # type: ignore[arg-type] its validator makes secrets of them
            parameters={"type": "object", "properties": {}},
            timeout_s=TIMEOUT_S,
        )
        policy.check_url(binding.server_url)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(map(str, first["loc"]))
        what = first["msg"].removeprefix("Value error, ")
        raise UserError(
            f"`{param}`: {what}; next step: see docs/http-tools.md", param=param, code="invalid_tool"
        ) from None
    except Forbidden as refused:
        message = f"tool {body.name!r}: {refused}; give another `server_url`"
        raise UserError(message, param="server_url", code="invalid_tool") from None
    return binding


def _arguments(given: str | dict[str, Any]) -> dict[str, Any]:
    try:
        read = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        message = '`arguments` is not the JSON of an object; expected one such as "{\\"query\\": \\"x\\"}"; mend it'
        raise UserError(message, param="arguments", code="invalid_value")
    return read
