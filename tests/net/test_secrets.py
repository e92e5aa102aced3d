"""Header values: in requests, in nothing else."""

from __future__ import annotations

import base64
import json

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentrft.net.secrets import MASK, WITH_SECRETS, Hider, SecretHeaders, WebAddress

SECRET = 'canary "5f1d\\0c9e'
BASIC = base64.b64encode(b"mira:hush-canary").decode()


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: WebAddress
    headers: SecretHeaders = Field(default_factory=dict)


def test_documents_are_masked_unless_they_are_to_run_again():
    read = Document.model_validate({"url": "https://h/x", "headers": {"X-Key": SECRET}})
    for shown in (repr(read), str(read), str(read.model_dump()), read.model_dump_json()):
        assert "canary" not in shown
    assert read.model_dump()["headers"] == {"X-Key": MASK}
    runnable = json.loads(json.dumps(read.model_dump(mode="json", context=WITH_SECRETS)))
    assert Document.model_validate(runnable) == read
    with pytest.raises(ValidationError, match="the value of 'X-Key' is masked"):
        Document.model_validate(read.model_dump())


@pytest.mark.parametrize(
    ("url", "is_good"),
    [
        ("https://host/a?b=c", True),
        ("http://[::1]:8080/", True),
        ("HTTP://host", True),
        ("https://u:hush@host/", False),
        ("https://u@host/", False),
        ("https://host/#hush", False),
        ("ftp://host/", False),
        ("https:///x", False),
        ("https://host:0/", False),
        ("https://host:99999/", False),
        ("https://ho st/", False),
        ("https://①②⑦.⓪.⓪.①/", False),
        ("https://h/\r\nX: y", False),
        ("host:80", False),
        (None, False),
    ],
)
def test_addresses(url, is_good):
    if is_good:
        assert Document(url=url).url == url
        return
    with pytest.raises(ValidationError, match="expected an address such as https://host/path") as caught:
        Document(url=url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "Expect", "Upgrade", "TE"])
def test_headers_of_the_request_itself_are_refused(name):
    with pytest.raises(ValidationError, match=f"got the header '{name}', which the request itself sets"):
        Document(url="https://h/", headers={name: "x"})


@pytest.mark.parametrize(
    "text",
    [
        f"unknown key {SECRET}",
        json.dumps({"key": SECRET}),
        "token tok-12345678 refused",
        "Bearer tok-12345678",
        f"got {BASIC}",
        "user mira:hush-canary",
        "password hush-canary",
    ],
)
def test_values_are_taken_out_in_every_form(text):
    headers = {"X-Key": SECRET, "Authorization": "Bearer tok-12345678", "X-B": f"Basic {BASIC}"}
    for hidden in (Hider(headers).hide(text), Hider(headers).hide_in_output(text)):
        assert MASK in hidden
        assert not any(word in hidden for word in ("canary", "tok-1", "hush", BASIC))


def test_words_of_an_output_stay():
    hider = Hider({"X-Team": "blue", "X-N": "7", "Accept": "application/json", "X-B": "Basic not base64!"})
    assert hider.hide_in_output("blue 7 application/json") == "blue 7 application/json"
    assert hider.hide("blue 7 application/json") == f"{MASK} 7 application/json"


def test_a_value_inside_another_leaves_no_rest():
    assert Hider({"A": "canary-one", "B": "canary-one-two"}).hide("canary-one-two") == MASK
