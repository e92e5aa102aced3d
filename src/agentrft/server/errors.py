"""OpenAI's error body, for everything that can go wrong: `{"error": {"message", "type", "param", "code"}}`.

Handlers raise; `envelope.Envelope` writes the answer. A UserError becomes 400 (404 for what is not there, 409 for what
is held), a BoundaryError 503, anything unforeseen 500 with the request's id and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from agentrft.errors import BoundaryError, UserError
from agentrft.report.text import printable

STATUS_OF_CODE = {"not_found": 404, "job_not_found": 404, "job_exists": 409, "job_is_held": 409}
"""UserError code → HTTP status, where it is not 400."""

_MOST_PROBLEMS = 3
_LONGEST_SHOWN = 60


class ErrorDetail(BaseModel):
    """What went wrong, as OpenAI's clients read it."""

    message: str = Field(description="What, got, expected, next step.")
    type: str
    param: str | None = Field(description="Dotted path of the field to blame.")
    code: str | None = Field(description="Stable machine-readable reason; docs/errors.md lists them.")


class ErrorBody(BaseModel):
    """Every answer that is no success."""

    error: ErrorDetail


class ApiError(Exception):
    """An answer other than a success. Raise it anywhere between the socket and the handler."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        type: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.type = type
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """OpenAI's error body; escape sequences and half characters are taken out of what users sent."""
        message = printable(self.message).encode("utf-8", "replace").decode()
        param = None if self.param is None else printable(self.param).encode("utf-8", "replace").decode()
        return {"error": {"message": message, "type": self.type, "param": param, "code": self.code}}


def as_api_error(error: Exception) -> ApiError | None:
    """The answer that an exception stands for; None when it is a bug."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UserError):
        return ApiError(STATUS_OF_CODE.get(error.code, 400), error.message, param=error.param, code=error.code)
    if isinstance(error, BoundaryError):
        # What a database or an engine says may name places on this machine: it is for the log, not for clients.
        message = f"the server's {error.boundary} cannot answer now; try again, and ask its operator if it goes on"
        return ApiError(503, message, code="unavailable", type="server_error", headers={"retry-after": "2"})
    if isinstance(error, RequestValidationError):
        return _invalid(error.errors())
    if isinstance(error, HTTPException):
        return _of_framework(error)
    return None


def server_error(request_id: str) -> ApiError:
    """What a client learns of a bug: the id to ask its operator about."""
    message = f"the server made an error; its log has the details under {request_id}; try again, or report that id"
    return ApiError(500, message, code="server_error", type="server_error")


def not_found(kind: str, given: str, *, param: str) -> ApiError:
    """404 for an object that is not there, or is another project's: nobody can tell which."""
    return ApiError(404, f"no {kind} {given!r} in this project; check the id", param=param, code="not_found")


def _of_framework(error: HTTPException) -> ApiError:
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == 404:
        message = "no such address; expected one of the paths in /openapi.json, with the base URL ending in /v1"
        return ApiError(404, message, code="unknown_url")
    if error.status_code == 405:
        allowed = headers.get("allow", "another method")
        message = f"this address does not take that method; expected {allowed}"
        return ApiError(405, message, code="method_not_supported", headers=headers)
    return ApiError(error.status_code, str(error.detail), code="invalid_request", headers=headers)


def _invalid(details: Sequence[Any]) -> ApiError:
    """400 for a request whose fields are not what the API takes; blames the first one."""
    found = [(_param(detail["loc"]), detail) for detail in details]
    lines = [f"`{param}`: {_expectation(detail)}" for param, detail in found[:_MOST_PROBLEMS]]
    if len(found) > _MOST_PROBLEMS:
        lines.append(f"… and {len(found) - _MOST_PROBLEMS} more")
    param, message, first = found[0][0], "; ".join(lines), found[0][1]["type"]
    if first == "missing":
        return ApiError(400, message, param=param, code="missing_required_parameter")
    if first == "extra_forbidden":
        return ApiError(400, message, param=param, code="unknown_parameter")
    return ApiError(400, message, param=param, code="invalid_value")


def _param(loc: Sequence[str | int]) -> str:
    """pydantic's location without the part of the request that it is in."""
    inside = loc[1:] if loc and loc[0] in ("body", "query", "path", "header") else loc
    return ".".join(map(str, inside)) or "body"


def _expectation(detail: Mapping[str, Any]) -> str:
    """What was expected. Values are shown only where they are one of few words: others may be secrets."""
    if detail["type"] == "missing":
        return "missing, expected a value"
    if detail["type"] == "extra_forbidden":
        return "unknown; leave it out"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    text = "expected " + str(detail["msg"]).removeprefix("Input should be ").removeprefix("a valid ")
    given = detail.get("input")
    if detail["type"] in ("literal_error", "enum", "bool_parsing", "int_parsing") or isinstance(given, int | float):
        return f"{text}, got {repr(given)[:_LONGEST_SHOWN]}"
    return f"{text}, got {_kind(given)}"


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(type(value), "something else")
