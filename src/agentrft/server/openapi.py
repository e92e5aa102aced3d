"""The server's OpenAPI document: FastAPI's, with what holds for every address and no handler can say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
_REQUEST_ID = {"x-request-id": {"description": "Names the request in the server's log.", "schema": {"type": "string"}}}
_EVENTS = {
    "schema": {"description": "Server-sent events, one after another; `data` of each is a JSON document."},
    "itemSchema": {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]},
}
"""OpenAPI 3.1 has no words for a stream of events; 3.2 has `itemSchema`."""
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body again give the first answer again, and nothing is done twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}


class DescribedApp(FastAPI):
    """An application whose document is whole."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = _document(self)
        return self.openapi_schema


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for method, operation in _operations(document):
        for status, answer in operation["responses"].items():
            answer["headers"] = {**answer.get("headers", {}), **_REQUEST_ID}
            if status in ("4XX", "5XX"):
                answer["content"] = _ERROR  # FastAPI puts the type of the good answer here
            if "text/event-stream" in answer.get("content", {}):
                answer["content"]["text/event-stream"] = _EVENTS
        takes_form = "multipart/form-data" in operation.get("requestBody", {}).get("content", {})
        if method == "post" and not takes_form:
            operation["parameters"] = [*operation.get("parameters", ()), _IDEMPOTENCY_KEY]
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for methods in document["paths"].values():
        yield from methods.items()
