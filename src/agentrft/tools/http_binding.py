"""What a job writes to bind an HTTP tool."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from agentrft.net.secrets import SecretHeaders, WebAddress
from agentrft.types import ToolSpec


class HttpBinding(BaseModel):
    """A tool's name bound to the service that does its work."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: Literal["http"] = "http"
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """As rows list it, and as it is sent."""
    server_url: WebAddress
    headers: SecretHeaders = Field(default_factory=dict)
    """Sent with every request; never shown."""
    description: str | None = None
    """For the model; with `parameters` only."""
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments object, for rows that list no tools."""
    max_concurrency: int = Field(default=32, ge=1, le=1000)
    """Requests at the same time to its server; the smallest of its tools' counts."""
    timeout_s: float | None = Field(default=None, gt=0, le=600)
    """Of one request; the job's `tool_timeout_s` when left out."""

    @field_validator("headers")
    @classmethod
    def _no_key_of_its_own(cls, headers: dict[str, Any]) -> dict[str, Any]:
        for name in headers:
            if name.lower() == "idempotency-key":
                raise ValueError(f"got the header {name!r}, which is made for each call; leave it out")
        return headers

    @model_validator(mode="after")
    def _described_as_a_whole(self) -> Self:
        if self.description is not None and self.parameters is None:
            raise ValueError("`description` lacks `parameters`, expected both, or neither where rows list the tool")
        return self

    @property
    def spec(self) -> ToolSpec | None:
        """The tool as it describes itself; None when only rows do."""
        if self.parameters is None:
            return None
        return ToolSpec(name=self.name, description=self.description or "", parameters=self.parameters)
