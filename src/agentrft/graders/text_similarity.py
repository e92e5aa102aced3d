"""`text_similarity`: how alike two texts are, from 0 to 1.

The metrics that need no model are `agentrft.graders.text_metrics`, each with its definition, its symmetry and what it
gives for texts without words. BLEU, GLEU and METEOR need nltk (`agentrft[text]`).

`cosine` is the cosine of two embeddings from any OpenAI-compatible `/embeddings` endpoint that the grader names, 0
where it is negative; symmetric. An empty text gets 0 and is not sent. Requests fail for good after 4 attempts, which
is a `GraderFault`: the endpoint's outage, never the answer's grade. Proxies come from the environment, redirects are
not followed, the key goes into one header and into no message. OpenAI offers this metric in evals only.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity import wait_random_exponential as random_exponential

from agentrft.clock import SYSTEM_CLOCK, retry_after_s
from agentrft.errors import GraderFault, UserError
from agentrft.graders.sample import sample_object
from agentrft.graders.spec import Spec, TemplateText
from agentrft.graders.template import Missing, Reference, Template
from agentrft.graders.text_metrics import NEEDS_NLTK, TEXT_METRICS, NoScore, Synonyms, meteor, wordnet
from agentrft.types import Grade, GradeError, Item, Sample

if TYPE_CHECKING:
    import httpx

MAX_CHARS = 1_000_000
"""Of one text; a longer one gets no grade, whatever the metric."""
MAX_ATTEMPTS = 4
MAX_PAUSE_S = 10.0
"""Between attempts, also where the endpoint asks for more: all attempts are to fit the 120 s that a grader has."""
MAX_ANSWER_BYTES = 8_000_000
"""Two embeddings of 4,096 numbers are about 200 kB as JSON."""
MAX_REQUESTS = 16
"""At the same time, of one grader."""

_TRY_AGAIN = frozenset({408, 429})
_TEXTS_REFUSED = frozenset({400, 413, 422})
_BACKOFF = random_exponential(multiplier=0.5, max=MAX_PAUSE_S)

Sleep = Callable[[float], Awaitable[None]]


class Embeddings(BaseModel):
    """An OpenAI-compatible endpoint that turns texts into vectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str
    """Without `/embeddings`: `https://api.openai.com/v1`, `http://localhost:8000/v1`."""
    model: str = Field(min_length=1)
    """As the endpoint names it; `text-embedding-3-large` is what OpenAI uses."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key, sent as `Authorization: Bearer`; none for no key."""
    timeout_s: float = Field(default=20.0, gt=0, le=120)
    """Wall-clock limit of one attempt, of which there are 4 at most."""

    @field_validator("base_url")
    @classmethod
    def _plain_http_url(cls, value: str) -> str:
        expected = "expected a URL such as https://api.openai.com/v1, without user, query and fragment"
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            raise ValueError(f"this is no URL, {expected}") from None
        # Not shown: a URL with a user or a query may hold a secret.
        if not usable or parts.username is not None or parts.query or parts.fragment:
            raise ValueError(f"got a URL that cannot be used, {expected}")
        return value.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _a_name_not_the_key(cls, value: str | None) -> str | None:
        # Not shown either: it may be the key itself, put here by mistake.
        if value is not None and not re.fullmatch(r"[A-Za-z_]\w*", value, re.ASCII):
            raise ValueError("got no variable's name, expected one such as OPENAI_API_KEY")
        return value


class TextSimilaritySpec(Spec):
    type: Literal["text_similarity"]
    input: TemplateText
    reference: TemplateText
    evaluation_metric: Literal[
        "fuzzy_match",
        "bleu",
        "gleu",
        "meteor",
        "cosine",
        "rouge_1",
        "rouge_2",
        "rouge_3",
        "rouge_4",
        "rouge_5",
        "rouge_l",
    ]
    synonyms: bool | None = None
    """For `meteor`: false leaves out its third stage, so that only words and stems match. Otherwise synonyms come from
    the WordNet among nltk's data, and the grader is refused where that is not installed."""
    embeddings: Embeddings | None = None
    """For `cosine`: where the vectors come from."""

    @model_validator(mode="after")
    def _only_what_the_metric_uses(self) -> Self:
        metric = self.evaluation_metric
        if metric == "cosine" and self.embeddings is None:
            raise ValueError("`cosine` lacks `embeddings`, expected base_url and model of an embedding endpoint")
        if metric != "cosine" and self.embeddings is not None:
            raise ValueError(f"got `embeddings` with {metric!r}, expected them with 'cosine' only")
        if metric != "meteor" and self.synonyms is not None:
            raise ValueError(f"got `synonyms` with {metric!r}, expected them with 'meteor' only")
        return self

    def references(self) -> tuple[Reference, ...]:
        return Template(self.input).references + Template(self.reference).references


class TextSimilarityGrader:
    """Similarity of the filled `input` and `reference`, 0 to 1; owns the connections to an embedding endpoint."""

    def __init__(self, spec: TextSimilaritySpec, *, param: str = "grader", sleep: Sleep = asyncio.sleep) -> None:
        """Raises UserError when a package, WordNet or the endpoint's key is missing; `sleep` waits between attempts."""
        self._name = spec.name
        self._input = Template(spec.input)
        self._reference = Template(spec.reference)
        self._endpoint = _Endpoint(spec.embeddings, param, sleep) if spec.embeddings else None
        self._metric = None if self._endpoint else _metric(spec, param)

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        """A number, or why these texts have none; raises GraderFault when the embedding endpoint fails."""
        seen = sample_object(sample)
        try:
            text, reference = self._input.fill(seen, item.fields), self._reference.fill(seen, item.fields)
            for side, filled in (("input", text), ("reference", reference)):
                if len(filled) > MAX_CHARS:
                    raise NoScore(f"got {len(filled)} characters of {side}, expected {MAX_CHARS} at most")
            if self._endpoint:
                return Grade(value=await self._endpoint.similarity(text, reference))
            assert self._metric is not None
            return Grade(value=self._metric(text, reference))
        except Missing as missing:
            return Grade(value=None, reason=str(missing), error=GradeError.INVALID_VARIABLE)
        except NoScore as why:
            return Grade(value=None, reason=f"grader {self._name!r}: {why}", error=why.kind)

    async def close(self) -> None:
        """Close the connections; a grade after it opens new ones."""
        if self._endpoint:
            await self._endpoint.close()


def _metric(spec: TextSimilaritySpec, param: str) -> Callable[[str, str], float]:
    name = spec.evaluation_metric
    if name in NEEDS_NLTK:
        try:
            importlib.import_module("nltk")
        except ImportError:
            raise UserError(
                f"the metric {name!r} needs nltk, which is not installed; next step: pip install 'agentrft[text]', or "
                "take fuzzy_match or a rouge metric",
                param=f"{param}.evaluation_metric",
                code="missing_extra",
            ) from None
    if name != "meteor" or spec.synonyms is False:
        return TEXT_METRICS[name]
    known = _wordnet(param)
    return lambda text, reference: meteor(text, reference, known)


def _wordnet(param: str) -> Synonyms:
    try:
        return wordnet()
    except (LookupError, OSError):
        raise UserError(
            "`meteor` needs WordNet, and nltk's data here has none that is complete; next step: python -m "
            "nltk.downloader wordnet, or set `synonyms: false` (it then matches words and stems only)",
            param=f"{param}.synonyms",
            code="invalid_grader",
        ) from None


class _Refused(NoScore):
    """The endpoint will not have these texts."""

    kind = GradeError.MODEL_SERVER


class _Unavailable(Exception):
    """An attempt failed in a way that another one may not."""

    def __init__(self, message: str, pause_s: float = 0.0) -> None:
        super().__init__(message)
        self.pause_s = pause_s


class _Endpoint:
    """Cosines from one embedding endpoint."""

    def __init__(self, spec: Embeddings, param: str, sleep: Sleep) -> None:
        self._spec = spec
        self._url = _checked_url(spec, param)
        self._key = _key(spec, param)
        self._sleep = sleep
        self._turn = asyncio.Semaphore(MAX_REQUESTS)
        self._client: httpx.AsyncClient | None = None

    async def similarity(self, text: str, reference: str) -> float:
        if not text or not reference:
            return 0.0
        # Escaped to ASCII: a lone surrogate in a model's text has no UTF-8.
        content = json.dumps({"model": self._spec.model, "input": [text, reference]}).encode()
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_Unavailable),
            stop=stop_after_attempt(MAX_ATTEMPTS),
            wait=_pause_s,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            body = await attempts(self._post, content)
        except _Unavailable as error:
            raise self._fault(f"{error} ({MAX_ATTEMPTS} attempts)", "check that it runs and `base_url`") from error
        try:
            return _cosine(*_vectors(body))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            why = f"answered what is not two embeddings ({type(error).__name__}: {error})"
            raise self._fault(why, "check `base_url` and `model`") from None

    async def close(self) -> None:
        client, self._client = self._client, None
        if client:
            await client.aclose()

    async def _post(self, content: bytes) -> bytes:
        import httpx

        if self._client is None:
            # `asyncio.timeout` below limits an attempt as a whole; httpx's own limits are for single reads.
            self._client = httpx.AsyncClient(timeout=None)
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        async with self._turn:
            try:
                async with (
                    asyncio.timeout(self._spec.timeout_s),
                    self._client.stream("POST", self._url, content=content, headers=headers) as response,
                ):
                    body = await self._read(response)
            except httpx.RequestError as error:
                raise _Unavailable(f"could not be reached ({type(error).__name__}: {error})") from error
            except TimeoutError:
                raise _Unavailable(f"gave no answer within {self._spec.timeout_s:g} s") from None
        return self._checked(response, body)

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise self._fault(f"answered with more than {MAX_ANSWER_BYTES} bytes", "check `base_url`")
        return bytes(body)

    def _checked(self, response: httpx.Response, body: bytes) -> bytes:
        status = response.status_code
        if status == 200:
            return body
        said = body.decode("utf-8", "replace")
        # Before it is cut: endpoints quote the key they refuse.
        said = said.replace(self._key, "***") if self._key else said
        answer = f"answered {status}: {' '.join(said[:2000].split())[:200]}"
        if status in _TRY_AGAIN or status >= 500:
            raise _Unavailable(answer, _asked_pause_s(response))
        if status in _TEXTS_REFUSED:
            raise _Refused(f"embedding endpoint {self._url} {answer}")
        raise self._fault(answer, "check `base_url`, `model` and `api_key_env`")

    def _fault(self, what: str, step: str) -> GraderFault:
        return GraderFault(f"embedding endpoint {self._url} {what}; next step: {step}")


def _checked_url(spec: Embeddings, param: str) -> str:
    import httpx  # 0.2 s to import, and only this metric needs it

    url = f"{spec.base_url}/embeddings"
    try:
        # The name look-up encodes like this and would raise an error that httpx does not know.
        httpx.URL(url).raw_host.decode("ascii").encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise UserError(
            f"`embeddings.base_url` cannot be used: {error}; expected a URL such as https://api.openai.com/v1; next "
            "step: mend it",
            param=f"{param}.embeddings.base_url",
            code="invalid_grader",
        ) from None
    return url


def _key(spec: Embeddings, param: str) -> str | None:
    if spec.api_key_env is None:
        return None
    key = os.environ.get(spec.api_key_env, "").strip()
    if key and key.isascii() and key.isprintable():
        return key
    got = "with characters that no HTTP header can carry" if key else "unset or empty"
    raise UserError(
        f"the environment variable {spec.api_key_env} is {got}; expected the embedding endpoint's key; next step: "
        "export it, or leave `api_key_env` out where no key is needed",
        param=f"{param}.embeddings.api_key_env",
        code="invalid_grader",
    )


def _pause_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.pause_s if isinstance(error, _Unavailable) else 0.0
    return max(_BACKOFF(state), asked)


def _asked_pause_s(response: httpx.Response) -> float:
    """What `Retry-After` asks for, 0 where it is absent or cannot be read, `MAX_PAUSE_S` at most."""
    return min(retry_after_s(response.headers.get("retry-after"), SYSTEM_CLOCK.now()) or 0.0, MAX_PAUSE_S)


def _vectors(body: bytes) -> tuple[list[float], list[float]]:
    """Both embeddings, in the order of the texts; raises one of several errors for anything else."""
    found: dict[int, list[Any]] = {entry["index"]: entry["embedding"] for entry in json.loads(body)["data"]}
    first, second = (_unit(found[index]) for index in (0, 1))
    if len(found) != 2 or len(first) != len(second):
        raise ValueError(f"{len(found)} vectors of {len(first)} and {len(second)} numbers")
    return first, second


def _unit(vector: Sequence[Any]) -> list[float]:
    if not isinstance(vector, list) or any(type(x) not in (int, float) for x in vector):
        raise TypeError("an embedding that is no list of numbers")
    length = math.hypot(*vector)
    if not math.isfinite(length) or length == 0:
        raise ValueError(f"an embedding of length {length}")
    return [x / length for x in vector]


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return min(max(math.fsum(x * y for x, y in zip(a, b, strict=True)), 0.0), 1.0)
