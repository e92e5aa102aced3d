"""Chat models behind an OpenAI-compatible API: `POST {base_url}/chat/completions`, text in and text out.

A request that got lost, or that the server was too busy or too broken for (408, 409, 429, 5xx, no chat completion in
the answer), is sent again, after `Retry-After` where the server names one. What then still fails is an EngineFault, and
so is at once what no repetition mends: a wrong key, an unknown model. 400, 413 and 422 are about this one request (too
long, filtered): RequestRefused, which `fill_in` hands on as a reply without a document.

Proxies come from the environment; redirects are not followed. The key goes into one header and into no message.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from agentrft.clock import SYSTEM_CLOCK, retry_after_s
from agentrft.engines.openai_wire import Completion, error_message, read_completion, request_body
from agentrft.errors import EngineFault, UserError
from agentrft.protocols import ChatEndpoint, JudgeReply
from agentrft.types import GradeError, Message, TokenUsage, ToolSpec

if TYPE_CHECKING:
    import httpx

OPENAI_URL = "https://api.openai.com/v1"
MAX_RESPONSE_BYTES = 4_000_000
_CONNECT_S = 10.0
_MAX_WORDS = 300
_BUSY = 429
_TRY_AGAIN = frozenset({408, 409, _BUSY})
_THIS_REQUEST = frozenset({400, 413, 422})
_HINTS = {401: "check the key", 403: "check the key's rights", 404: "check the model's name and the base URL"}
_FORMAT_WORDS = ("response_format", "json_schema", "structured output")


class RequestRefused(EngineFault):
    """The server refused this one request (400, 413, 422); another may pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a lost request is sent again, and after how long."""

    most: int = 3
    first_wait_s: float = 0.5
    """Doubles with each retry, half of it random; four times as long for a server that says it is busy."""
    longest_wait_s: float = 60.0
    """A server that asks for more by `Retry-After` counts as down."""


class OpenAIChat:
    """One model at one address: a `ChatModel`, and a `Judge`. Serves one event loop."""

    def __init__(
        self, endpoint: ChatEndpoint, *, base_url: str, api_key: str | None = None, retries: Retries | None = None
    ) -> None:
        """Opens no connection yet. `base_url` and `api_key` are those to use, whatever `endpoint` names."""
        self._endpoint = endpoint
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._api_key = api_key
        self._retries = retries or Retries()
        self._slots = asyncio.Semaphore(endpoint.max_concurrency)
        self._client: httpx.AsyncClient | None = None
        self._closed = False
        self._constrains = True

    async def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Message:
        """One assistant message; a refusal is its text.

        Raises EngineFault after retries, for a request that the server refuses, and for a reply cut off by the token
        limit: a message cannot say that it is half a message.
        """
        completion = await self.complete(messages, tools=tools)
        if completion.finish_reason == "length":
            raise self._fault(f"the reply was cut off{_tokens(completion.usage)}")
        if completion.refusal and completion.message.content is None:
            return Message(role="assistant", content=completion.refusal)
        return completion.message

    async def fill_in(self, messages: Sequence[Message], form: Mapping[str, Any], *, attempt: int = 0) -> JudgeReply:
        """The judge's document in the shape of `form`, or why there is none; raises EngineFault for an outage.

        A server that refuses `response_format` is asked again without it; from the first success on, always. The
        messages must describe the form in words, too: some servers take `response_format` and ignore it.
        """
        try:
            completion = await self._formed(messages, form, attempt)
        except RequestRefused as refused:
            filtered = "content_filter" in str(refused)
            error = GradeError.MODEL_REFUSAL if filtered else GradeError.MODEL_SERVER
            return JudgeReply(document=None, reason=str(refused), error=error)
        reason, error = _why_no_document(completion)
        return JudgeReply(
            document=None if reason else completion.message.content,
            reason=reason,
            error=error,
            usage=completion.usage,
            is_constrained=self._constrains,
        )

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[ToolSpec] = (),
        form: Mapping[str, Any] | None = None,
        attempt: int = 0,
    ) -> Completion:
        """One reply with its token usage; `form` constrains it to a JSON Schema, `attempt` is added to the seed.

        Raises RequestRefused when the server refuses this request, EngineFault for everything else that fails.
        """
        payload = request_body(self._endpoint, messages, tools, form, attempt)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Lost),
            stop=stop_after_attempt(1 + self._retries.most),
            wait=self._wait_s,
            reraise=True,
        )
        try:
            return await retrying(self._once, payload)
        except _Lost as lost:
            raise self._fault(f"{lost} ({1 + self._retries.most} tries)") from lost

    async def close(self) -> None:
        """Drop all connections; requests in flight and later ones end with EngineFault."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _formed(self, messages: Sequence[Message], form: Mapping[str, Any], attempt: int) -> Completion:
        if self._constrains:
            try:
                return await self.complete(messages, form=form, attempt=attempt)
            except RequestRefused as refused:
                if not any(word in str(refused).lower() for word in _FORMAT_WORDS):
                    raise
        completion = await self.complete(messages, attempt=attempt)
        self._constrains = False
        return completion

    async def _once(self, payload: bytes) -> Completion:
        import httpx  # 0.2 s to import, and most jobs have no judge

        async with self._slots:
            if self._closed:
                raise self._fault("it was closed")
            try:
                async with asyncio.timeout(self._endpoint.timeout_s):
                    response, data = await self._exchange(payload)
            except TimeoutError as error:
                raise _Lost(f"no answer within {self._endpoint.timeout_s:g} s") from error
            except (httpx.RequestError, UnicodeError) as error:  # UnicodeError: a host that is broken Punycode
                raise _Lost(f"{type(error).__name__}: {self._without_key(str(error))}") from error
        return self._read(response, data)

    async def _exchange(self, payload: bytes) -> tuple[httpx.Response, bytes]:
        import httpx

        if self._client is None:
            timeout = httpx.Timeout(None, connect=_CONNECT_S)
            self._client = httpx.AsyncClient(timeout=timeout, limits=httpx.Limits(max_connections=None))
        headers = {"content-type": "application/json"}
        if self._api_key:
            headers["authorization"] = f"Bearer {self._api_key}"
        async with self._client.stream("POST", self._url, content=payload, headers=headers) as response:
            data = bytearray()
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > MAX_RESPONSE_BYTES:
                    raise self._fault(f"its answer is larger than {MAX_RESPONSE_BYTES} bytes")
            return response, bytes(data)

    def _read(self, response: httpx.Response, data: bytes) -> Completion:
        status = response.status_code
        if status in _TRY_AGAIN or status >= 500:
            wait_s = retry_after_s(response.headers.get("retry-after"), SYSTEM_CLOCK.now())
            if wait_s is not None and wait_s > self._retries.longest_wait_s:
                raise self._fault(f"{self._answered(status, data)} (and asks to wait {wait_s:.0f} s)")
            raise _Lost(self._answered(status, data), wait_s=wait_s, is_busy=status == _BUSY)
        if status in _THIS_REQUEST:
            raise RequestRefused(f"{self._name}: {self._answered(status, data)}")
        if not response.is_success:
            hint = f"; {_HINTS[status]}" if status in _HINTS else ""
            raise self._fault(f"{self._answered(status, data)}{hint}")
        try:
            return read_completion(data)
        except ValueError:
            raise _Lost(f"answered {status} without a chat completion: {self._words(data)}") from None

    @property
    def _name(self) -> str:
        return f"model {self._endpoint.model!r} at {urlsplit(self._url).netloc}"

    def _fault(self, what: str) -> EngineFault:
        return EngineFault(f"{self._name}: {what}")

    def _answered(self, status: int, data: bytes) -> str:
        return f"answered {status}: {self._words(data) or 'without a word'}"

    def _words(self, data: bytes) -> str:
        """What the server says, in one line, as far as a reason has room."""
        text = " ".join(self._without_key(error_message(data)).split())
        return text if len(text) <= _MAX_WORDS else f"{text[:_MAX_WORDS]}…"

    def _without_key(self, text: str) -> str:
        return text.replace(self._api_key, "**********") if self._api_key else text

    def _wait_s(self, state: RetryCallState) -> float:
        lost = state.outcome.exception() if state.outcome else None
        assert isinstance(lost, _Lost)
        if lost.wait_s is not None:
            return lost.wait_s * (1 + 0.1 * random.random())  # whoever was told the same must not come back at once
        longest = self._retries.first_wait_s * 2 ** (state.attempt_number - 1) * (4 if lost.is_busy else 1)
        return longest * (0.5 + 0.5 * random.random())


class _Lost(Exception):
    """No usable answer to a request that may be sent again."""

    def __init__(self, what: str, *, wait_s: float | None = None, is_busy: bool = False) -> None:
        super().__init__(what)
        self.wait_s = wait_s
        self.is_busy = is_busy


def open_judge(endpoint: ChatEndpoint, param: str = "grader", *, retries: Retries | None = None) -> OpenAIChat:
    """The model at `endpoint`, with address and key from the environment where `endpoint` names none.

    `OPENAI_API_KEY` goes to the address in `OPENAI_BASE_URL`, or OpenAI's own; an address that `endpoint` names gets
    the key that it names, or none. Raises UserError, blaming a field below `param`, for an address that is none and for
    a key that is not there. Nothing is sent.
    """
    url = endpoint.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    _check_url(url, f"{param}.base_url")
    variable = endpoint.api_key_env or ("OPENAI_API_KEY" if endpoint.base_url is None else None)
    key = os.environ.get(variable, "").strip() if variable else ""
    if not key and (endpoint.api_key_env or url == OPENAI_URL):
        raise UserError(
            f"model {endpoint.model!r}: the environment variable {variable} is not set; expected the key for {url}. "
            f"Set it, or name the model's own address (`{param}.base_url`) and, if it wants a key, "
            f"`{param}.api_key_env`",
            param=f"{param}.api_key_env",
            code="invalid_grader",
        )
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise UserError(
            f"model {endpoint.model!r}: the key in {variable} has spaces, line breaks or characters beyond ASCII; "
            "expected what can stand in an HTTP header. Set it again",
            param=f"{param}.api_key_env",
            code="invalid_grader",
        )
    return OpenAIChat(endpoint, base_url=url, api_key=key or None, retries=retries)


def _check_url(text: str, param: str) -> None:
    try:
        url = urlsplit(text)
        is_good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        is_good = is_good and url.username is None and not (url.query or url.fragment)
        is_good = is_good and re.fullmatch(r"[\x21-\x7e]{1,2000}", text) is not None
    except ValueError:
        is_good = False
    if not is_good:
        raise UserError(
            f"`{param}` (or OPENAI_BASE_URL) is no address of an API; expected one such as http://localhost:8000/v1, "
            "without user name, password or query. Correct it",
            param=param,
            code="invalid_grader",
        )


def _why_no_document(completion: Completion) -> tuple[str, GradeError] | tuple[None, None]:
    if completion.refusal:
        return f"it declined: {completion.refusal[:_MAX_WORDS]}", GradeError.MODEL_REFUSAL
    if completion.finish_reason == "content_filter":
        return "its provider's content filter stopped the reply", GradeError.MODEL_REFUSAL
    if completion.finish_reason == "length":
        return f"its reply was cut off{_tokens(completion.usage)}", GradeError.MODEL_PARSE
    if not (completion.message.content or "").strip():
        return "its reply is empty", GradeError.MODEL_PARSE
    return None, None


def _tokens(usage: TokenUsage | None) -> str:
    return f" after {usage.completion_tokens} tokens" if usage else ""
