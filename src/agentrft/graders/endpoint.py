"""`endpoint`: a number from a web service of the user's, as Agent RFT's endpoint graders.

`POST url` with `{"sample": {…}, "item": {…}, "trace_id": "trace_…"}`, answered by `{"score": number}`. Any finite
number is the grade, unless `range` is given: what is outside it is no grade then. Nothing is ever clamped. The sample
is what templates see, with OpenAI's `output_reasoning_summary` (null: we have none); the item is the whole row, as
OpenAI sends it: `tools` and each message's `name` are null where the row has none. Services must bear nulls.

4xx is the service's own word about this sample: no grade, with what it said. 5xx, 408, 425, 429, a lost connection and
a timeout are tried again, three times; then it is a GraderFault, an outage. So the service may be asked more than once
with the same `trace_id`. Header values are secrets: they are masked wherever a document is written or shown, and taken
out of what the service says.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from dataclasses import replace
from typing import Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from agentrft.clock import SYSTEM_CLOCK, retry_after_s
from agentrft.errors import GraderFault
from agentrft.graders.sample import sample_object
from agentrft.graders.spec import Range, Spec
from agentrft.graders.strict_json import number_in, read_object
from agentrft.net.exchange import Answer, Bounds, Lost, WebClient
from agentrft.net.policy import Forbidden, NetworkPolicy
from agentrft.net.secrets import Hider, SecretHeaders, WebAddress
from agentrft.net.wire import item_object
from agentrft.types import Grade, GradeError, Item, Sample

MAX_PAYLOAD_BYTES = 1_000_000
MAX_ANSWER_BYTES = 64_000
RETRIES = 3
MAX_CONCURRENCY = 32
LONGEST_WAIT_S = 60.0
"""A service that asks for more by `Retry-After` counts as down."""

_MAX_WORDS = 300
_TRY_AGAIN = frozenset({408, 425, 429})


class EndpointSpec(Spec):
    model_config = ConfigDict(hide_input_in_errors=True)

    type: Literal["endpoint"]
    name: str = Field(default="endpoint", min_length=1, max_length=200)
    url: WebAddress
    headers: SecretHeaders = Field(default_factory=dict)
    """Sent with every request; never shown."""
    rate_limit: float | None = Field(default=None, gt=0, le=10_000, allow_inf_nan=False)
    """Most requests started a second, retries included; evenly spaced."""
    range: Range | None = None
    """Lowest and highest grade; anything outside is no grade."""
    timeout_s: float = Field(default=120.0, gt=0, le=600)
    """Of one request, retries not included."""


class EndpointGrader:
    """Asks the service; owns the connections to it. Serves one event loop."""

    def __init__(self, spec: EndpointSpec, *, first_wait_s: float = 0.5, policy: NetworkPolicy | None = None) -> None:
        """Opens no connection yet. `first_wait_s` is the longest wait before the first retry; it doubles each time.

        `policy` says which addresses may be asked; `NetworkPolicy.local()` when it is left out.
        """
        self._spec = spec
        self._headers = {name: value.get_secret_value() for name, value in spec.headers.items()}
        self._first_wait_s = first_wait_s
        self._slots = asyncio.Semaphore(MAX_CONCURRENCY)
        self._pace = _Pace(spec.rate_limit)
        self._hider = Hider(self._headers)
        self._client = WebClient(policy or NetworkPolicy.local())
        self._closed = False

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        """The service's score, or why it is none; raises GraderFault when the service is down."""
        started = time.perf_counter()
        grade = await self._grade(sample, item, trace_id)
        return replace(grade, wall_s=time.perf_counter() - started)

    async def close(self) -> None:
        """Drop all connections; requests in flight end with GraderFault, later grades have no number."""
        self._closed = True
        await self._client.close()

    async def _grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        if self._closed:
            return self._none("is closed", GradeError.OTHER)
        try:
            payload = _payload(sample, item, trace_id)
        except (TypeError, ValueError, RecursionError) as error:
            return self._none(f"cannot be sent this item: {error}", GradeError.SAMPLE_PARSE)
        if len(payload) > MAX_PAYLOAD_BYTES:
            what = f"cannot be sent sample and item of {len(payload)} bytes, expected {MAX_PAYLOAD_BYTES} at most"
            return self._none(what, GradeError.TRUNCATED_OBSERVATION)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Lost), stop=stop_after_attempt(1 + RETRIES), wait=self._wait_s, reraise=True
        )
        try:
            return await retrying(self._once, payload)
        except _Lost as lost:
            raise self._fault(f"{lost} ({1 + RETRIES} tries)") from lost

    async def _once(self, payload: bytes) -> Grade:
        bounds = Bounds(total_s=self._spec.timeout_s, max_bytes=MAX_ANSWER_BYTES)
        async with self._slots:
            await self._pace.turn()
            if self._closed:
                raise self._fault("it was closed")
            try:
                answer = await self._client.post(self._spec.url, payload, self._headers, bounds)
            except Lost as lost:
                raise _Lost(self._hider.hide(str(lost))) from lost
            except Forbidden as refused:
                raise self._fault(str(refused)) from refused
        return self._read(answer)

    def _read(self, answer: Answer) -> Grade:
        status = answer.status
        answered = f"answered {status}: {self._words(answer.body) or 'without a word'}"
        if status in _TRY_AGAIN or status >= 500:
            wait_s = retry_after_s(answer.headers.get("retry-after"), SYSTEM_CLOCK.now())
            if wait_s is not None and wait_s > LONGEST_WAIT_S:
                raise self._fault(f"{answered} (and asks to wait {wait_s:.0f} s)")
            raise _Lost(answered, wait_s)
        if status >= 300:  # redirects too: they are not followed
            return self._none(answered, GradeError.UNRESPONSIVE_REWARD)
        try:
            score = _score_in(answer)
        except ValueError as unread:
            return self._none(f"{answered}; {unread}, expected {{'score': number}}", GradeError.UNRESPONSIVE_REWARD)
        low, high = self._spec.range or (-math.inf, math.inf)
        if not low <= score <= high:
            return self._none(f"gave {score:g}, expected {low:g} to {high:g}", GradeError.UNRESPONSIVE_REWARD)
        return Grade(value=score)

    def _none(self, what: str, error: GradeError) -> Grade:
        return Grade(value=None, reason=f"grader {self._spec.name!r} {what}", error=error)

    def _fault(self, what: str) -> GraderFault:
        return GraderFault(f"endpoint of grader {self._spec.name!r} at {urlsplit(self._spec.url).netloc}: {what}")

    def _words(self, data: bytes) -> str:
        """What the service says, in one line, as far as a reason has room."""
        text = " ".join(self._hider.hide(data.decode("utf-8", "replace")).split())
        return text if len(text) <= _MAX_WORDS else f"{text[:_MAX_WORDS]}…"

    def _wait_s(self, state: RetryCallState) -> float:
        lost = state.outcome.exception() if state.outcome else None
        assert isinstance(lost, _Lost)
        if lost.wait_s is not None:
            return lost.wait_s * (1 + 0.1 * random.random())  # whoever was told the same must not come back at once
        return self._first_wait_s * 2 ** (state.attempt_number - 1) * (0.5 + 0.5 * random.random())


class _Lost(Exception):
    """No usable answer to a request that may be sent again."""

    def __init__(self, what: str, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class _Pace:
    """Lets callers through one after the other, `per_s` times a second at most."""

    def __init__(self, per_s: float | None) -> None:
        self._gap_s = 1 / per_s if per_s else 0.0
        self._next_s = 0.0

    async def turn(self) -> None:
        if not self._gap_s:
            return
        now_s = time.monotonic()
        start_s = max(now_s, self._next_s)
        self._next_s = start_s + self._gap_s
        await asyncio.sleep(start_s - now_s)


def _payload(sample: Sample, item: Item, trace_id: str) -> bytes:
    """The request's body; raises TypeError, ValueError or RecursionError for an item that is not JSON."""
    shown = {**sample_object(sample), "output_reasoning_summary": None}
    # ASCII: lone surrogates in what a model wrote survive as escapes.
    return json.dumps({"sample": shown, "item": item_object(item), "trace_id": trace_id}, allow_nan=False).encode()


def _score_in(answer: Answer) -> float:
    """The field `score` of an answer; raises ValueError when it is not one finite number."""
    if answer.was_cut:
        raise ValueError(f"more than {MAX_ANSWER_BYTES} bytes")
    return number_in(read_object(answer.body), "score")
