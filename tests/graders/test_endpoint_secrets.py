"""Header values of `endpoint` graders: in the request, and in nothing that is shown or written."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from agentrft.errors import GraderFault, UserError
from agentrft.graders import parse_grader
from agentrft.graders.endpoint import EndpointGrader, EndpointSpec
from agentrft.net.secrets import MASK, WITH_SECRETS

SECRET = "canary-5f1d0c9e"
HEADERS = {"Authorization": f"Bearer {SECRET}", "X-Team": "blue"}


def test_documents_are_masked_unless_they_are_to_run_again():
    spec = parse_grader({"type": "endpoint", "url": "http://h/g", "headers": HEADERS})
    for shown in (repr(spec), str(spec), str(spec.model_dump()), spec.model_dump_json(), str(vars(spec))):
        assert SECRET not in shown
        assert "blue" not in shown
    assert spec.model_dump(mode="json")["headers"] == {"Authorization": MASK, "X-Team": MASK}
    assert spec.name == "endpoint"
    runnable = spec.model_dump(mode="json", context=WITH_SECRETS)
    assert json.loads(json.dumps(runnable))["headers"] == HEADERS
    assert parse_grader(runnable) == spec


def test_they_are_masked_inside_a_multi_too():
    part = {"type": "endpoint", "url": "http://h/g", "headers": HEADERS}
    spec = parse_grader({"type": "multi", "name": "m", "graders": {"a": part}, "calculate_output": "a"})
    assert SECRET not in spec.model_dump_json() + repr(spec)
    assert parse_grader(spec.model_dump(mode="json", context=WITH_SECRETS)) == spec


def test_a_masked_document_cannot_run():
    spec = parse_grader({"type": "endpoint", "url": "http://h/g", "headers": HEADERS})
    with pytest.raises(UserError, match=r"`grader.headers`: the value of 'Authorization' is masked, expected the"):
        parse_grader(spec.model_dump(mode="json"))


@pytest.mark.parametrize(
    "respond",
    [
        {"status": 401, "body": f"unknown token 'Bearer {SECRET}', send another than {SECRET}".encode()},
        {"status": 500, "body": f"{'x' * 290} {SECRET} and {SECRET}".encode()},
        {"body": f'{{"score": "{SECRET}"}}'.encode()},
        {"body": SECRET.encode()},
    ],
    ids=lambda value: str(value.get("status", 200)),
)
async def test_they_are_in_no_reason_and_no_fault(serve, answer, make_sample, make_item, respond):
    server = serve(lambda asked: answer(**respond))
    grader = EndpointGrader(EndpointSpec(type="endpoint", url=server.url, headers=HEADERS), first_wait_s=0.001)
    try:
        shown = repr(await grader.grade(make_sample("x"), make_item(), "t"))
    except GraderFault as fault:
        shown = f"{fault} {fault!r} {fault.__cause__!r}"
    assert SECRET in server.asked[0].headers["authorization"]
    assert "canary" not in shown
    assert SECRET not in repr(grader)
    await grader.close()


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (
            {"Authorization": ["hush"]},
            "the value of 'Authorization' cannot be sent, expected one line of ASCII text",
        ),
        ({"Authorization": "hush\r\nX-Admin: 1"}, "the value of 'Authorization' cannot be sent"),
        ({"Authorization": "húsh hush"}, "the value of 'Authorization' cannot be sent"),
        ({"Authorization": " hush"}, "the value of 'Authorization' cannot be sent"),
        ({"Authorization": ""}, "the value of 'Authorization' cannot be sent"),
        ({"hush hush": "x"}, "expected header names of letters, digits and '-'"),
        ({5: "hush"}, "expected header names of letters, digits and '-'"),
        (
            {"Content-Length": "hush"},
            "got the header 'Content-Length', which the request itself sets; leave it out",
        ),
        ({"HOST": "hush"}, "got the header 'HOST', which the request itself sets"),
        ("Authorization: hush", "expected an object from header names to values"),
        (["hush"], "expected an object from header names to values"),
    ],
    ids=str,
)
def test_bad_headers_are_named_without_their_values(headers, said):
    document = {"type": "endpoint", "url": "http://h/g", "headers": headers}
    with pytest.raises(UserError) as caught:
        parse_grader(document)
    assert caught.value.message.startswith(f"`grader.headers`: {said}")
    assert "hush" not in caught.value.message
    with pytest.raises(ValidationError) as raw:
        EndpointSpec.model_validate(document)
    assert "hush" not in str(raw.value)


@pytest.mark.parametrize(
    "document",
    [
        {"headers": {"Authorization": "hush"}, "type": "enpoint", "url": "http://h/g"},
        {"headers": {"Authorization": "hush"}, "url": "http://h/g"},
        {"headers": {"Authorization": "hush"}, "type": "endpoint"},
        {"headers": {"Authorization": "hush"}, "type": "endpoint", "url": "http://h/g", "rate": 5},
        {"headers": {"Authorization": "hush"}, "type": "endpoint", "url": "http://user:hush@h/g"},
        {"type": "endpoint", "url": "http://h/g", "header": {"Authorization": "hush"}},
        {"type": "multi", "name": "m", "graders": [{"headers": {"A": "hush"}}], "calculate_output": "a"},
        {"type": "multi", "name": "m", "graders": {"a": [{"headers": {"A": "hush"}}]}, "calculate_output": "a"},
        {
            "type": "multi",
            "name": "m",
            "graders": {"a": {"headers": {"Authorization": "hush"}, "type": "x"}},
            "calculate_output": "a",
        },
    ],
    ids=lambda document: str(list(document)),
)
def test_a_broken_document_is_not_quoted(document):
    with pytest.raises(UserError) as caught:
        parse_grader(document)
    assert "hush" not in caught.value.message
