"""How a job names an MCP server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FieldSerializationInfo,
    SecretStr,
    field_serializer,
    model_validator,
)

from agentrft.net.secrets import MASK, SecretHeaders, WebAddress


def _environment(env: Any) -> Any:
    """Raises ValueError with names only: whatever stands where a value belongs may be a secret."""
    if not isinstance(env, Mapping):
        raise ValueError("expected an object from names of environment variables to values")
    for name, value in env.items():
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("expected names of letters, digits and '_'")
        if not isinstance(text, str) or "\0" in text:
            raise ValueError(f"the value of {name!r} cannot be set, expected a string")
        if text == MASK:
            raise ValueError(f"the value of {name!r} is masked, expected the value itself")
    return dict(env)


class McpBinding(BaseModel):
    """`{type: mcp, server_label: files, command: [python, server.py]}` in a job file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: Literal["mcp"]
    server_label: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """What messages call the server."""
    server_url: WebAddress | None = None
    """Of a service that speaks streamable HTTP."""
    command: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Of a program that speaks MCP over stdin and stdout; it runs with all our rights."""
    env: Annotated[dict[str, SecretStr], BeforeValidator(_environment)] = Field(default_factory=dict)
    """For the program, which gets PATH, HOME and LANG besides and nothing else; values are never shown."""
    cwd: str | None = None
    """Where the program runs, relative to the job file; the job file's folder unless given."""
    headers: SecretHeaders = Field(default_factory=dict)
    """Sent with every request to the service; values are never shown."""
    allowed_tools: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Names as the server has them, or patterns (`search_*`); all its tools unless given."""
    prefix: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]{0,32}$")
    """Put before the names that the model sees, to keep two servers' tools apart."""
    sessions: Literal["episode", "job"] | None = None
    """`episode`: each has its own session, since most servers keep state. `job`: one session for all. `episode` unless
    given, or `state_key` is."""
    state_key: str | None = Field(default=None, min_length=1)
    """How one session keeps episodes apart: the argument of this name, or else this key of `_meta`, gets the trace id.
    The model does not see the argument. Implies `sessions: job`."""
    max_sessions: int | None = Field(default=None, ge=1, le=1024)
    """Most sessions of episodes at a time, 32 unless given; an episode waits for a free one."""
    start_timeout_s: float | None = Field(default=None, gt=0, le=600)
    """How long the server may take to answer the first message; as long as a tool call unless given."""

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if (self.server_url is None) == (self.command is None):
            raise ValueError("an MCP server has either `server_url` or `command`; give one of them")
        if self.command is None and (self.env or self.cwd is not None):
            raise ValueError("`env` and `cwd` are for a `command`; a service takes `headers`")
        if self.command is not None and ("" in self.command[:1] or any("\0" in word for word in self.command)):
            raise ValueError("`command` is the program and its arguments, as in [python, server.py]")
        if self.command is not None and self.headers:
            raise ValueError("`headers` are for a `server_url`; a program takes `env`")
        if self.state_key is not None and self.sessions == "episode":
            raise ValueError("`state_key` keeps episodes apart in one session; leave out `sessions: episode`")
        if self.is_shared and self.max_sessions is not None:
            raise ValueError("`max_sessions` bounds the sessions of episodes; this server has one for the job")
        return self

    @field_serializer("env")
    def _masked_unless_asked_for(self, env: dict[str, SecretStr], info: FieldSerializationInfo) -> dict[str, str]:
        is_shown = bool(info.context and info.context.get("secrets"))
        return {name: value.get_secret_value() if is_shown else MASK for name, value in env.items()}

    @property
    def is_shared(self) -> bool:
        """One session serves all episodes."""
        return self.sessions == "job" or self.state_key is not None
