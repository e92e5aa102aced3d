"""Jobs at a server, over its HTTP API: what it answers becomes the same objects and the same errors as at home."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from agentrft.cli.desk import KEY, Format, JobView
from agentrft.errors import BoundaryError, UserError
from agentrft.protocols import EpisodeFilter

_JOBS = "/fine_tuning/jobs"
_CONNECT_S, _ANSWER_S, _STREAM_S = 10.0, 300.0, 60.0
"""A stream has a heartbeat every 15 s."""
_TRIES, _FIRST_WAIT_S, _LONGEST_WAIT_S = 4, 0.5, 8.0
_FOLLOW_TRIES = 12
"""In a row, without an event between them: a minute and a half, in which a server can start anew."""
_PAGE = 100
_MOST_JOBS_SEARCHED = 10_000
_ID_LENGTH = len("ftjob-") + 24


class ServerFault(BoundaryError):
    """The server cannot be reached, or could not answer."""

    boundary = "server"


class ServerDesk:
    """`Desk` of `agentrft.cli.desk`, and what `run --server` needs beside it."""

    def __init__(self, url: str, key: str | None) -> None:
        """`url` with or without `/v1`; a server without keys takes any `key`."""
        self._url = _base(url)
        headers = {"authorization": f"Bearer {key or 'none'}"}
        timeout = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
        self._client = httpx.Client(base_url=self._url, headers=headers, timeout=timeout)

    def jobs(self, limit: int) -> list[JobView]:
        found: list[JobView] = []
        after: dict[str, str] = {}
        while len(found) < limit:
            page = self._get(_JOBS, {"limit": min(limit - len(found), _PAGE), **after})
            found += [_view(job) for job in page["data"]]
            if not page["has_more"] or not page["data"]:
                break
            after = {"after": page["data"][-1]["id"]}
        return found

    def find(self, given: str) -> str:
        prefix = given if given.startswith("ftjob-") else f"ftjob-{given}"
        if len(prefix) == _ID_LENGTH:
            return self.job(prefix).id
        found = [job.id for job in self.jobs(_MOST_JOBS_SEARCHED) if job.id.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        got = f"{len(found)} jobs begin with it ({', '.join(found[:3])} …)" if found else "no job begins with it"
        raise UserError(
            f"job {given!r}: {got}; expected the beginning of one job's id. `agentrft jobs list --server {self._url}` "
            "shows them",
            param="job",
            code="job_not_found",
        )

    def job(self, job_id: str) -> JobView:
        return _view(self._get(f"{_JOBS}/{job_id}"))

    def events(self, job_id: str, limit: int) -> list[dict[str, Any]]:
        return self._get(f"{_JOBS}/{job_id}/events", {"limit": limit})["data"][::-1]

    def follow(self, job_id: str) -> Iterator[dict[str, Any]]:
        after: str | None = None
        failures = 0
        while True:
            try:
                for event in self._stream(job_id, after):
                    if event is None:
                        return
                    after, failures = event["id"], 0
                    yield event
            except ServerFault:
                failures += 1
                if failures == _FOLLOW_TRIES:
                    raise
            time.sleep(min(_FIRST_WAIT_S * 2**failures, _LONGEST_WAIT_S))

    def metrics(self, job_id: str, *, after: int = -1) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self._get(f"{_JOBS}/{job_id}/metrics", {"after": after})
            found += page["data"]
            if not page["has_more"]:
                return found
            after = found[-1]["step"]

    def checkpoints(self, job_id: str) -> list[dict[str, Any]]:
        return list(self._pages(f"{_JOBS}/{job_id}/checkpoints", {}))

    def episodes(self, job_id: str, wanted: EpisodeFilter, limit: int) -> list[dict[str, Any]]:
        pages = self._pages(f"{_JOBS}/{job_id}/episodes", _given(wanted), page=min(limit, _PAGE))
        return [episode for _, episode in zip(range(limit), pages, strict=False)]

    def export(self, job_id: str, wanted: EpisodeFilter) -> Iterator[str]:
        query = {**_given(wanted), "format": "jsonl"}
        with self._open("GET", f"{_JOBS}/{job_id}/episodes", params=query) as answer:
            yield from (f"{line}\n" for line in answer.iter_lines())

    def pause(self, job_id: str) -> JobView:
        return _view(self._post(f"{_JOBS}/{job_id}/pause"))

    def resume(self, job_id: str) -> JobView:
        return _view(self._post(f"{_JOBS}/{job_id}/resume"))

    def cancel(self, job_id: str) -> JobView:
        return _view(self._post(f"{_JOBS}/{job_id}/cancel"))

    def weights(self, job_id: str, checkpoint: str, format: Format) -> Iterator[bytes]:
        path = f"{_JOBS}/{job_id}/checkpoints/{checkpoint}/download"
        with self._open("GET", path, params={"format": format}) as answer:
            yield from answer.iter_bytes()

    def upload(self, path: Path) -> str:
        """The id of the file, sent with purpose `fine-tune`."""
        with path.open("rb") as file:
            form = {"data": {"purpose": "fine-tune"}, "files": {"file": (path.name, file, "application/jsonl")}}
            return self._answer(self._client.build_request("POST", "/files", **form))["id"]

    def create(self, body: Mapping[str, Any]) -> JobView:
        """The job that the body asks for; asking again after a lost answer makes no second one."""
        return _view(self._post(_JOBS, body))

    def close(self) -> None:
        self._client.close()

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        return self._repeated(lambda: self._client.build_request("GET", path, params=query))

    def _post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"idempotency-key": str(uuid.uuid4())}
        return self._repeated(lambda: self._client.build_request("POST", path, json=body or {}, headers=headers))

    def _pages(self, path: str, query: Mapping[str, Any], *, page: int = _PAGE) -> Iterator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            answer = self._get(path, {**query, "limit": page, **after})
            yield from answer["data"]
            if not answer["has_more"]:
                return
            after = {"after": answer["data"][-1]["id"]}

    def _stream(self, job_id: str, after: str | None) -> Iterator[dict[str, Any] | None]:
        """Events as they come, and None once the server says that there are no more."""
        headers = {} if after is None else {"last-event-id": after}
        timeout = httpx.Timeout(_STREAM_S, connect=_CONNECT_S)
        path, query = f"{_JOBS}/{job_id}/events", {"stream": "true"}
        with self._open("GET", path, params=query, headers=headers, timeout=timeout) as answer:
            for line in answer.iter_lines():
                if line == "data: [DONE]":
                    yield None
                elif line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    def _repeated(self, build: Any) -> Any:
        """The answer, asked for again while the server cannot be reached or says that it cannot now."""
        for attempt in range(_TRIES):
            try:
                return self._answer(build())
            except ServerFault:
                if attempt + 1 == _TRIES:
                    raise
                time.sleep(_FIRST_WAIT_S * 2**attempt)
        raise AssertionError("unreachable: the last try returns or raises")

    def _answer(self, request: httpx.Request) -> Any:
        try:
            response = self._client.send(request)
        except httpx.HTTPError as error:
            raise self._fault(error) from error
        self._raise_error(response)
        try:
            return response.json()
        except ValueError:
            raise ServerFault(f"{self._url} answered {response.status_code}, but no JSON; is it agentrft?") from None

    @contextmanager
    def _open(self, method: str, path: str, **given: Any) -> Iterator[httpx.Response]:
        try:
            with self._client.stream(method, path, **given) as response:
                if response.is_error:
                    response.read()
                self._raise_error(response)
                yield response
        except httpx.HTTPError as error:  # at any time: a server may go while it sends
            raise self._fault(error) from error

    def _raise_error(self, response: httpx.Response) -> None:
        """UserError for what the server refuses, ServerFault for what it cannot do now."""
        if response.is_success:
            return
        try:
            error = response.json()["error"]
            message, param, code = error["message"], error["param"], error["code"]
        except (ValueError, KeyError, TypeError):
            message, param, code = f"{self._url} answered {response.status_code} without a word", None, None
        if response.status_code >= 500 or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise ServerFault(message)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            message, param = f"{message}. This command takes its key from {KEY}", KEY
        raise UserError(message, param=param, code=code or "invalid_request")

    def _fault(self, error: Exception) -> ServerFault:
        return ServerFault(
            f"no answer from {self._url} ({error}); expected a server there. Start it with `agentrft serve`, or mend "
            "--server"
        )


def _base(url: str) -> str:
    given = url.rstrip("/")
    parts = httpx.URL(given) if "://" in given else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.host:
        raise UserError(
            f"--server is {url!r}; expected an address such as http://127.0.0.1:8000. Mend it", param="--server"
        )
    return given if given.endswith("/v1") else f"{given}/v1"


def _given(wanted: EpisodeFilter) -> dict[str, Any]:
    return {name: value for name, value in asdict(wanted).items() if value is not None}


def _view(job: Mapping[str, Any]) -> JobView:
    return JobView(
        id=job["id"],
        kind=job["method"]["type"],
        status=job["status"],
        created_at=job["created_at"],
        model=job["model"],
        result=job["fine_tuned_model"],
        error=(job["error"] or {}).get("message"),
        folder=None,
        is_run_here=False,
    )
