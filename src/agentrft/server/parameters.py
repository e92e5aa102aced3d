"""Fields of a request that change nothing here: taken where they are harmless, refused where they ask for something.

An option that does nothing is never taken in silence: what a client asks for either happens, or is refused with the
next step, or is a name or a hint that no answer depends on.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


class Body(BaseModel):
    """A request's JSON body; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Inert:
    """Metadata of a field that asks for nothing: null and `values` are taken, anything else refused with the next step.

    `store: Annotated[Any, Inert(False, step="…")] = None`
    """

    def __init__(self, *values: Any, step: str) -> None:
        self.values = values
        self.step = step

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": [None, *self.values]}

    def _check(self, value: Any) -> Any:
        if value is not None and not any(_is(value, one) for one in self.values):
            raise ValueError(f"cannot take effect on this server; {self.step}")
        return value


Hint = Annotated[Any, Field(description="Taken; no answer depends on it.")]
"""A field's type: a name or a hint of the client's."""


def _is(value: Any, one: Any) -> bool:
    """Equal, and not just because Python takes True for 1."""
    return value == one and isinstance(value, bool) == isinstance(one, bool)
