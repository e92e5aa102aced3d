"""Other words for a tool than its own: what a job may say about a description or an argument, or that a tool is hidden.

Words only: names, types and what is required stay as the tool has them, so that whatever was valid stays valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict

from agentrft.errors import UserError
from agentrft.types import ToolSpec


class ToolDoc(BaseModel):
    """How a tool is put to the model, in place of its own words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str | None = None
    """In place of the tool's own."""
    parameters: Mapping[str, str] = {}
    """Descriptions of arguments, by name, in place of the tool's own."""
    hidden: bool = False
    """The model is not told of the tool, and a call of it is unknown."""


def documented(specs: Sequence[ToolSpec], docs: Mapping[str, ToolDoc]) -> tuple[ToolSpec, ...]:
    """The tools in the words that the model gets, hidden ones too.

    Raises UserError where a document names an argument that the tool does not have.
    """
    return tuple(_documented(spec, docs[spec.name]) if spec.name in docs else spec for spec in specs)


def check_docs(docs: Mapping[str, ToolDoc], names: Sequence[str]) -> None:
    """Raise UserError for a tool that the job does not bind."""
    for name in docs:
        if name not in names:
            raise UserError(
                f"`agent.tool_docs` describes {name!r}, which the job does not bind; expected one of: "
                f"{', '.join(names) or 'none'}. Mend the name, or bind the tool",
                param=f"agent.tool_docs.{name}",
                code="tool_not_found",
            )


def _documented(spec: ToolSpec, doc: ToolDoc) -> ToolSpec:
    own = spec.parameters.get("properties")
    properties: dict[str, Any] = dict(own) if isinstance(own, Mapping) else {}
    for name, text in doc.parameters.items():
        if name not in properties:
            raise UserError(
                f"`agent.tool_docs.{spec.name}.parameters` describes {name!r}, which the tool does not take; expected "
                f"one of: {', '.join(properties) or 'none'}. Mend the name, or leave it out",
                param=f"agent.tool_docs.{spec.name}.parameters.{name}",
                code="tool_not_found",
            )
        # A schema may be `true`, or a `$ref`, beside which a description is allowed.
        schema = properties[name] if isinstance(properties[name], Mapping) else {}
        properties[name] = {**schema, "description": text}
    parameters = {**spec.parameters, "properties": properties} if doc.parameters else spec.parameters
    description = spec.description if doc.description is None else doc.description
    return replace(spec, description=description, parameters=parameters)
