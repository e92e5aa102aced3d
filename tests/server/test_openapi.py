"""The server's own OpenAPI document is complete and true: schemathesis asks what it says may be asked.

Files, uploads, kept responses and health here; tests/soak/test_api_fuzz.py does the same for every address, with
thousands of cases.
"""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings

CASES = 15
LABELS = [
    "GET /healthz",
    "GET /metrics",
    "GET /v1/files",
    "POST /v1/files",
    "GET /v1/files/{file_id}",
    "DELETE /v1/files/{file_id}",
    "GET /v1/files/{file_id}/content",
    "POST /v1/uploads",
    "POST /v1/uploads/{upload_id}/parts",
    "POST /v1/uploads/{upload_id}/complete",
    "POST /v1/uploads/{upload_id}/cancel",
    "GET /v1/responses/{response_id}",
    "DELETE /v1/responses/{response_id}",
    "GET /v1/responses/{response_id}/input_items",
]


@pytest.fixture(scope="module")
def document(shared: Any) -> dict[str, Any]:
    return shared.http().get("/openapi.json").json()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_it_has_every_route(shared: Any, document: dict[str, Any]) -> None:
    app = shared.app
    routes = {
        f"{method} {route.path_format}"
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    assert routes == {label for label, _ in operations(document)}


def test_every_operation_says_what_it_needs_and_may_answer(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for label, operation in operations(document):
        assert operation["description"], label
        assert operation["tags"], label
        assert ("security" in operation) == (label != "GET /healthz"), label
        assert {"4XX", "5XX"} <= set(operation["responses"]), label
        assert "422" not in operation["responses"], label
        for status in ("4XX", "5XX"):
            schema = operation["responses"][status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorBody"}
        good = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        assert good, label
        assert all(part["schema"] for answer in good for part in answer.get("content", {}).values()), label


@pytest.mark.filterwarnings("ignore")  # of what schemathesis does inside hypothesis
@pytest.mark.parametrize("label", LABELS)
def test_answers_are_as_the_document_says(shared: Any, document: dict[str, Any], label: str) -> None:
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    schema = schemathesis.openapi.from_dict(document)
    method, path = label.split()
    operation = schema[path][method]
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
    ]

    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        response = case.call(base_url=shared.url, headers={"Authorization": "Bearer x"}, timeout=10)
        case.validate_response(response, checks=checks)

    ask()
