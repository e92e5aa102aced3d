"""What a job may say of an MCP server."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from agentrft.net.secrets import WITH_SECRETS
from agentrft.tools.mcp_binding import McpBinding

PROGRAM: dict[str, Any] = {"type": "mcp", "server_label": "lab", "command": ["python", "server.py"]}
SERVICE: dict[str, Any] = {"type": "mcp", "server_label": "lab", "server_url": "https://lab.example/mcp"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"type": "mcp", "server_label": "lab"}, "either `server_url` or `command`"),
        ({**PROGRAM, "server_url": "https://lab.example/mcp"}, "either `server_url` or `command`"),
        ({**PROGRAM, "headers": {"Authorization": "x"}}, "a program takes `env`"),
        ({**SERVICE, "env": {"TOKEN": "x"}}, "a service takes `headers`"),
        ({**SERVICE, "cwd": "here"}, "a service takes `headers`"),
        ({**PROGRAM, "command": []}, "at least 1 item"),
        ({**PROGRAM, "command": ["", "x"]}, "the program and its arguments"),
        ({**PROGRAM, "command": ["python", "a\0b"]}, "the program and its arguments"),
        ({**PROGRAM, "env": {"A=B": "x"}}, "names of letters, digits"),
        ({**PROGRAM, "env": {"A": 3}}, "the value of 'A' cannot be set, expected a string"),
        ({**PROGRAM, "env": {"A": "**********"}}, "the value of 'A' is masked"),
        ({**PROGRAM, "sessions": "episode", "state_key": "trace"}, "leave out `sessions: episode`"),
        ({**PROGRAM, "sessions": "job", "max_sessions": 3}, "this server has one for the job"),
        ({**PROGRAM, "allowed_tools": []}, "at least 1 item"),
        ({**PROGRAM, "prefix": "a b"}, "should match pattern"),
        ({**PROGRAM, "tools": ["a"]}, "Extra inputs"),
        ({**SERVICE, "server_url": "file:///etc/passwd"}, "expected an address such as"),
    ],
)
def test_what_does_not_hold_together_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        McpBinding.model_validate(given)


def test_a_key_implies_one_session() -> None:
    assert not McpBinding.model_validate(PROGRAM).is_shared
    assert McpBinding.model_validate({**PROGRAM, "sessions": "job"}).is_shared
    assert McpBinding.model_validate({**PROGRAM, "state_key": "trace"}).is_shared


@pytest.mark.parametrize("given", [{**PROGRAM, "env": {"T": "s3cret"}}, {**SERVICE, "headers": {"T": "s3cret"}}])
def test_secrets_are_shown_only_when_asked_for(given: dict[str, Any]) -> None:
    binding = McpBinding.model_validate(given)
    assert "s3cret" not in repr(binding)
    assert "s3cret" not in binding.model_dump_json()
    again = McpBinding.model_validate(binding.model_dump(context=WITH_SECRETS, exclude_unset=True))
    assert again == binding
    with pytest.raises(ValidationError) as caught:
        McpBinding.model_validate({**given, "command": "s3cret"})
    assert "s3cret" not in str(caught.value)


def test_the_sdk_is_not_imported_for_jobs_without_it() -> None:
    program = "import sys, agentrft.tools.mcp_tool; sys.exit('mcp' in sys.modules or 'httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    "document",
    [
        {"server_url": "http://127.0.0.1:9/mcp"},
        {"command": ["x"]},
        {"command": ["x"], "sessions": "job"},
        {"server_url": "http://127.0.0.1:9/mcp", "state_key": "episode"},
        {"command": ["x"], "max_sessions": 4, "cwd": "a"},
    ],
)
def test_a_stored_document_means_the_same(document: dict[str, object]) -> None:
    one = McpBinding.model_validate({"type": "mcp", "server_label": "s", **document})
    assert McpBinding.model_validate(one.model_dump(mode="json")) == one
