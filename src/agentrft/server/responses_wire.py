"""Requests to the Responses API as OpenAI's clients write them, and the conversation they hold.

docs/chat-api.md says of every field what it does here; a test compares. A request carries its whole conversation, or
names the response that it goes on from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from agentrft.runtime.serving.wire import MAX_TOP_LOG_PROBS
from agentrft.server.chat_wire import (
    MOST_MESSAGES,
    MOST_TOOLS,
    CalledFunction,
    FunctionSpec,
    Lenient,
    PastCall,
    PastMessage,
    Seed,
    StreamOptions,
    Temperature,
    Text,
    TokenCount,
    ToolName,
    TopP,
    check_answered,
    check_choice,
    check_differ,
)
from agentrft.server.parameters import Body, Hint, Inert

LOGPROBS = "message.output_text.logprobs"


class InputItem(Lenient):
    """A message, a call, the output of a call, or the reasoning of another model, which is passed over."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: Text = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: Text = None

    model_config = ConfigDict(validate_default=True)

    @field_validator("role", "content")
    @classmethod
    def _is_for_messages(cls, value: Any, info: ValidationInfo) -> Any:
        return _needed_by(("message",), value, info)

    @field_validator("call_id")
    @classmethod
    def _is_for_calls_and_outputs(cls, value: Any, info: ValidationInfo) -> Any:
        return _needed_by(("function_call", "function_call_output"), value, info)

    @field_validator("name", "arguments")
    @classmethod
    def _is_for_calls(cls, value: Any, info: ValidationInfo) -> Any:
        return _needed_by(("function_call",), value, info)

    @field_validator("output")
    @classmethod
    def _is_for_outputs(cls, value: Any, info: ValidationInfo) -> Any:
        return _needed_by(("function_call_output",), value, info)


def _needed_by(kinds: Sequence[str], value: Any, info: ValidationInfo) -> Any:
    if value is None and (kind := info.data.get("type")) in kinds:
        raise ValueError(f"missing, expected a text: an item of type {kind} needs it")
    return value


def messages_of(items: Sequence[InputItem]) -> list[PastMessage]:
    """The conversation: an assistant's message and the calls right after it are one reply.

    Raises ValueError where a call has no output, or an output no call.
    """
    messages: list[PastMessage] = []
    for item in items:
        if item.type == "message":
            assert item.role is not None
            messages.append(PastMessage(role=item.role, content=item.content))
        elif item.type == "function_call":
            function = CalledFunction(name=item.name or "", arguments=item.arguments or "")
            call = PastCall(id=item.call_id or "", function=function)
            if messages and messages[-1].role == "assistant":
                messages[-1].tool_calls = [*(messages[-1].tool_calls or []), call]
            else:
                messages.append(PastMessage(role="assistant", tool_calls=[call]))
        elif item.type == "function_call_output":
            messages.append(PastMessage(role="tool", content=item.output, tool_call_id=item.call_id))
    check_answered(messages)
    return messages


def _items(given: Any) -> Any:
    return [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given


Input = Annotated[
    list[InputItem],
    BeforeValidator(_items, json_schema_input_type=str | list[InputItem]),
    Field(min_length=1, max_length=MOST_MESSAGES),
]
"""A question, or the items of a conversation."""


class _OfKindFunction(Lenient):
    type: Literal["function"]


class ResponseTool(FunctionSpec, _OfKindFunction):
    """A function that the model may call."""


class NamedChoice(Lenient):
    """The one tool to call."""

    type: Literal["function"]
    name: str


class AllowedToolsChoice(Lenient):
    """Some of the tools."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[NamedChoice] = Field(min_length=1)


ResponseToolChoice = Literal["none", "auto", "required"] | NamedChoice | AllowedToolsChoice


def _one_of(choice: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(choice)
    except ValidationError:
        raise ValueError('expected "none", "auto", "required", or {"type": "function", "name": …}') from None


class TextFormat(Lenient):
    """What the text has to be."""

    type: Literal["text", "json_object", "json_schema"]
    name: ToolName | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> TextFormat:
        has = [self.name is not None, self.schema_ is not None]
        if has != [self.type == "json_schema"] * 2:
            raise ValueError("`name` and `schema` belong to a format of type json_schema, which needs both")
        return self

    def wire(self) -> dict[str, Any]:
        """The format in the words of chat completions."""
        if self.type != "json_schema":
            return {"type": self.type}
        form = self.model_dump(by_alias=True, exclude_none=True, exclude={"type"})
        return {"type": "json_schema", "json_schema": form}


class TextOptions(Lenient):
    format: TextFormat | None = None
    verbosity: Annotated[Any, Inert("medium", step="ask for the length you want in `instructions`")] = None


class Reasoning(Lenient):
    """These models do not reason apart from what they write."""

    effort: Annotated[Any, Inert("none", step="leave `reasoning` out")] = None
    summary: Hint = None
    generate_summary: Hint = None


class ResponseBody(Body):
    """A request for a response."""

    model: str = Field(min_length=1, max_length=500)
    # Before `input`, which is half a conversation where there is one.
    previous_response_id: str | None = Field(default=None, min_length=1, max_length=200)
    input: Input
    instructions: str | None = None
    tools: list[ResponseTool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: Annotated[ResponseToolChoice | None, WrapValidator(_one_of)] = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    max_output_tokens: TokenCount = None
    temperature: Temperature = None
    top_p: TopP = None
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=MAX_TOP_LOG_PROBS)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    store: bool | None = Field(default=None, description="Keep the response, so that others can go on from it: true.")

    # Ours
    seed: Seed = None
    bundle: str | None = Field(default=None, max_length=200, description="Hash of the agent that asks.")
    force_bundle: bool = Field(default=False, description="Answer although the model knows another bundle.")

    # Names and hints
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Hint = None
    prompt_cache_options: Hint = None

    # Asking for nothing
    reasoning: Reasoning | None = None
    conversation: Annotated[
        Any, Inert(step="there are no conversation objects; go on from a response with `previous_response_id`")
    ] = None
    background: Annotated[Any, Inert(False, step="use `stream` for long answers")] = None
    background_options: Annotated[Any, Inert(step="leave it out")] = None
    truncation: Annotated[Any, Inert("disabled", step="shorten `input` yourself where it is too long")] = None
    context_management: Annotated[Any, Inert([], step="shorten `input` yourself where it is too long")] = None
    service_tier: Annotated[Any, Inert("auto", "default", step="there is one tier; leave it out")] = None
    max_tool_calls: Annotated[Any, Inert(step="it limits built-in tools, of which there are none; leave it out")] = None
    prompt: Annotated[Any, Inert(step="prompts are not kept; send `instructions`")] = None
    moderation: Annotated[Any, Inert(step="nothing is moderated here; leave it out")] = None
    image: Annotated[Any, Inert(step="models here read text only; leave it out")] = None
    access_programs: Annotated[Any, Inert(step="leave it out")] = None

    @field_validator("input")
    @classmethod
    def _is_a_conversation(cls, items: list[InputItem], info: ValidationInfo) -> list[InputItem]:
        is_whole = info.data.get("previous_response_id") is None
        if is_whole and not messages_of(items):
            raise ValueError("holds reasoning only, expected a message")
        return items

    @field_validator("tools")
    @classmethod
    def _differ(cls, tools: list[ResponseTool] | None) -> list[ResponseTool] | None:
        check_differ([tool.name for tool in tools or ()])
        return tools

    @field_validator("tool_choice")
    @classmethod
    def _is_there(cls, choice: ResponseToolChoice | None, info: ValidationInfo) -> ResponseToolChoice | None:
        names = [tool.name for tool in info.data.get("tools") or ()]
        check_choice(choice, chosen_tools(choice), names)
        return choice

    @field_validator("top_logprobs")
    @classmethod
    def _are_included(cls, count: int | None, info: ValidationInfo) -> int | None:
        if count and LOGPROBS not in (info.data.get("include") or ()):
            raise ValueError(f'needs `include`: ["{LOGPROBS}"]')
        return count

    @field_validator("stream_options")
    @classmethod
    def _has_stream(cls, options: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if options is not None and not info.data.get("stream"):
            raise ValueError("needs `stream`: true")
        return options


def chosen_tools(choice: ResponseToolChoice | None) -> list[str]:
    """The tools that a choice names."""
    if isinstance(choice, NamedChoice):
        return [choice.name]
    return [tool.name for tool in choice.tools] if isinstance(choice, AllowedToolsChoice) else []
