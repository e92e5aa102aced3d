"""Requests for chat completions as OpenAI's clients write them.

docs/chat-api.md says of every field what it does here; a test compares.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    field_validator,
    model_validator,
)

from agentrft.runtime.serving.wire import MAX_TOP_LOG_PROBS
from agentrft.server.parameters import Body, Hint, Inert

MOST_MESSAGES = 4096
MOST_TOOLS = 128
MOST_CHOICES = 128
MOST_STOPS = 4

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def text_of(content: Any) -> Any:
    """A message's text: of parts, those of kind text one after another; raises ValueError for any other kind."""
    if not isinstance(content, list):
        return content
    texts: list[str] = []
    for k, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get(_TEXT_KEY.get(kind, "")) if isinstance(part, Mapping) and isinstance(kind, str) else None
        if not isinstance(text, str):
            shown = repr(kind)[:40]
            raise ValueError(f"part {k} is of type {shown}, expected text: models here read text only; leave it out")
        texts.append(text)
    return "".join(texts)


_TEXT_KEY = {"text": "text", "refusal": "refusal", "input_text": "text", "output_text": "text"}
_PARTS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
        "required": ["type", "text"],
    },
}
Text = Annotated[
    str | None,
    BeforeValidator(text_of),
    WithJsonSchema({"anyOf": [{"type": "string"}, _PARTS, {"type": "null"}]}),
]
"""A string, or a list of text parts."""


def _tool_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected 1 to 64 letters, digits, '_', '.' or '-', got {name[:80]!r}")
    return name


ToolName = Annotated[
    str, AfterValidator(_tool_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME.pattern}$"})
]


class Lenient(BaseModel):
    """Part of a request in which clients send back what they were given, and more: unknown keys are passed over."""

    model_config = ConfigDict(extra="ignore", strict=True)


class CalledFunction(Lenient):
    """What a call of the conversation called."""

    name: str
    arguments: str


class PastCall(Lenient):
    """A call of the conversation."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class PastMessage(Lenient):
    """A message of the conversation so far."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text = None
    tool_calls: list[PastCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _fits_its_role(self) -> PastMessage:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a {self.role} message has `tool_calls`, expected them on assistant messages only")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise ValueError(f"`tool_call_id` belongs to tool messages, which need it; this is a {self.role} message")
        if self.content is None and not self.tool_calls:
            raise ValueError("no `content`, expected a text; only assistant messages with `tool_calls` may have none")
        return self

    def wire(self) -> dict[str, Any]:
        """The message as the engine reads it."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


def check_answered(messages: Sequence[PastMessage]) -> None:
    """Raise ValueError unless every call is answered, right after the message that made it."""
    waiting: list[str] = []
    for k, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                raise ValueError(
                    f"message {k} answers the call {message.tool_call_id!r}, expected a call of the assistant message "
                    f"before it ({', '.join(map(repr, waiting)) or 'there is none'}), each answered once"
                )
            waiting.remove(message.tool_call_id)
        elif waiting:
            raise ValueError(f"message {k} comes before an answer to the call {waiting[0]!r}; add the tool message")
        else:
            waiting = [call.id for call in message.tool_calls or ()]
    if waiting:
        raise ValueError(f"the call {waiting[0]!r} is not answered; add the tool message")


class FunctionSpec(Lenient):
    """A function that the model may call."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(default=None, description="JSON Schema of its arguments, an object.")
    strict: bool | None = None

    def wire(self) -> dict[str, Any]:
        """The tool as the engine reads it."""
        parameters = self.parameters or {"type": "object", "properties": {}}
        function = {"name": self.name, "description": self.description or "", "parameters": parameters}
        return {"type": "function", "function": {**function, "strict": bool(self.strict)}}


class ChatTool(Lenient):
    """A tool; only functions can be called here."""

    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(Lenient):
    name: str


class NamedTool(Lenient):
    """The one tool to call."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Lenient):
    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1)


class AllowedChoice(Lenient):
    """Some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _one_of(choice: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(choice)
    except ValidationError:
        raise ValueError(
            'expected "none", "auto", "required", or {"type": "function", "function": {"name": …}}'
        ) from None


ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedChoice


def check_differ(names: Sequence[str]) -> None:
    """Raise ValueError when two tools have one name."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two tools are called {twice!r}; give them different names")


def check_choice(choice: object, wanted: Sequence[str], names: Sequence[str]) -> None:
    """Raise ValueError when a choice of tools, which names `wanted`, names one that is not there."""
    if choice == "required" and not names:
        raise ValueError("a call is required, but `tools` has none; give tools")
    if missing := next((name for name in wanted if name not in names), None):
        raise ValueError(f"no tool {missing!r} in `tools`, expected one of {', '.join(names) or 'none'}")


def chosen_names(choice: ToolChoice | None) -> list[str]:
    """The tools that a choice names."""
    if isinstance(choice, NamedTool):
        return [choice.function.name]
    if isinstance(choice, AllowedChoice):
        return [tool.function.name for tool in choice.allowed_tools.tools]
    return []


class JsonSchema(Lenient):
    """A form to fill in."""

    name: ToolName
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Lenient):
    """What the text has to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @field_validator("json_schema")
    @classmethod
    def _belongs(cls, schema: JsonSchema | None, info: ValidationInfo) -> JsonSchema | None:
        if (schema is not None) != (info.data.get("type") == "json_schema"):
            raise ValueError('belongs to {"type": "json_schema"}, which needs it')
        return schema

    model_config = ConfigDict(validate_default=True)


class StreamOptions(Lenient):
    include_usage: bool | None = None
    include_obfuscation: Hint = None


def stops_of(stop: Any) -> Any:
    """`stop` as a list."""
    return [stop] if isinstance(stop, str) else stop


Stops = Annotated[
    Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=MOST_STOPS)] | None,
    BeforeValidator(stops_of),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": 1000},
                {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1, "maxLength": 1000},
                    "maxItems": MOST_STOPS,
                },
                {"type": "null"},
            ]
        }
    ),
]
"""A string or up to four."""

TokenCount = Annotated[int | None, Field(ge=1, le=2**31 - 1)]
Temperature = Annotated[float | None, Field(ge=0, le=2, allow_inf_nan=False)]
TopP = Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)]
Seed = Annotated[int | None, Field(ge=-(2**63), le=2**63 - 1)]
_SIXTEEN_PAIRS = Field(default=None, max_length=16)


class ChatBody(Body):
    """A request for chat completions."""

    model: str = Field(min_length=1, max_length=500)
    messages: list[PastMessage] = Field(min_length=1, max_length=MOST_MESSAGES)
    tools: list[ChatTool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: Annotated[ToolChoice | None, WrapValidator(_one_of)] = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_completion_tokens: TokenCount = None
    max_tokens: TokenCount = None
    temperature: Temperature = None
    top_p: TopP = None
    n: Annotated[int | None, Field(ge=1, le=MOST_CHOICES)] = None
    seed: Seed = None
    stop: Stops = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=MAX_TOP_LOG_PROBS)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    # Ours
    bundle: str | None = Field(default=None, max_length=200, description="Hash of the agent that asks.")
    force_bundle: bool = Field(default=False, description="Answer although the model knows another bundle.")

    # Names and hints
    user: Hint = None
    safety_identifier: Hint = None
    metadata: dict[str, str] | None = _SIXTEEN_PAIRS
    prompt_cache_key: Hint = None
    prompt_cache_retention: Hint = None
    prompt_cache_options: Hint = None

    # Asking for nothing
    store: Annotated[Any, Inert(False, step="completions are not kept; leave `store` out, or keep them yourself")] = (
        None
    )
    service_tier: Annotated[Any, Inert("auto", "default", step="there is one tier; leave `service_tier` out")] = None
    modalities: Annotated[Any, Inert(["text"], step="answers are text; leave `modalities` out")] = None
    verbosity: Annotated[Any, Inert("medium", step="ask for the length you want in a message")] = None
    reasoning_effort: Annotated[
        Any, Inert("none", step="these models do not reason apart from what they write; leave it out")
    ] = None
    frequency_penalty: Annotated[Any, Inert(0, step="leave it at 0")] = None
    presence_penalty: Annotated[Any, Inert(0, step="leave it at 0")] = None
    logit_bias: Annotated[
        Any, Inert({}, step="use `response_format` or `tool_choice` to bind what the model writes")
    ] = None
    audio: Annotated[Any, Inert(step="answers are text; leave `audio` out")] = None
    prediction: Annotated[Any, Inert(step="leave `prediction` out")] = None
    web_search_options: Annotated[Any, Inert(step="give the model a search tool in `tools`")] = None
    moderation: Annotated[Any, Inert(step="nothing is moderated here; leave `moderation` out")] = None
    functions: Annotated[Any, Inert([], step="give them as `tools`, each {'type': 'function', 'function': …}")] = None
    function_call: Annotated[Any, Inert("none", "auto", step="use `tool_choice`")] = None

    @field_validator("messages")
    @classmethod
    def _are_answered(cls, messages: list[PastMessage]) -> list[PastMessage]:
        check_answered(messages)
        return messages

    @field_validator("tools")
    @classmethod
    def _differ(cls, tools: list[ChatTool] | None) -> list[ChatTool] | None:
        check_differ([tool.function.name for tool in tools or ()])
        return tools

    @field_validator("tool_choice")
    @classmethod
    def _is_there(cls, choice: ToolChoice | None, info: ValidationInfo) -> ToolChoice | None:
        names = [tool.function.name for tool in info.data.get("tools") or ()]
        check_choice(choice, chosen_names(choice), names)
        return choice

    @field_validator("max_tokens")
    @classmethod
    def _is_one(cls, most: int | None, info: ValidationInfo) -> int | None:
        if None not in (most, other := info.data.get("max_completion_tokens")) and most != other:
            raise ValueError("another limit than `max_completion_tokens`, of which it is the older name; give one")
        return most

    @field_validator("top_logprobs")
    @classmethod
    def _has_logprobs(cls, count: int | None, info: ValidationInfo) -> int | None:
        if count is not None and not info.data.get("logprobs"):
            raise ValueError("needs `logprobs`: true")
        return count

    @field_validator("stream_options")
    @classmethod
    def _has_stream(cls, options: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if options is not None and not info.data.get("stream"):
            raise ValueError("needs `stream`: true")
        return options
