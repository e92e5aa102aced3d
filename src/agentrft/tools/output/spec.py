"""What a job may say about a tool's output: `agent.outputs: {"<tool glob>": {...}}`."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

READ_OUTPUT_NAME = "read_output"
"""The built-in tool that `offload` brings; a tool of the user's cannot have this name beside it."""
Keep = Literal["head", "tail", "head+tail"]
TableFormat = Literal["csv", "markdown"]
PathText = Annotated[str, Field(min_length=1, max_length=200)]
JsonPath = PathText | Annotated[tuple[PathText, ...], Field(min_length=1, max_length=32)]
"""`orders.*.id`, or `["orders", "*", "a.b"]` for keys with a dot in them; `*` is any key and any list position."""


class ProjectSpec(BaseModel):
    """Which parts of a JSON output the model sees."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep: tuple[JsonPath, ...] = ()
    """Only what these paths reach; everything when there are none, and when none of them reaches anything."""
    drop: tuple[JsonPath, ...] = ()
    """Taken away from what is kept."""
    drop_empty: bool = False
    """Fields that are null, `""`, `[]` or `{}` go too; list elements stay, so positions keep their meaning."""

    @model_validator(mode="after")
    def _does_something(self) -> ProjectSpec:
        if not (self.keep or self.drop or self.drop_empty):
            raise ValueError("it changes nothing; give keep, drop or drop_empty, or leave it out")
        return self


class OutputSpec(BaseModel):
    """How the outputs of some tools reach the model. With no settings: cleaned, and cut at the end where too long."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strip: bool = True
    """Take away terminal escapes, control, zero-width and bidi characters, and the model's template tokens."""
    project: ProjectSpec | None = None
    profiles: Mapping[str, ProjectSpec] = Field(default_factory=dict)
    """Named ways to project, such as `concise` and `detailed`; `profile` picks one."""
    profile: str | None = None
    table: TableFormat | None = None
    """Write a list of 5 or more objects that share 80 % of their keys as a table; None leaves JSON as it is."""
    page_rows: Annotated[int, Field(ge=1)] | None = None
    """Rows (of a JSON list) or lines (of text) shown at most."""
    max_tokens: Annotated[int, Field(ge=16)] | None = None
    """Shown at most, in place of `agent.limits.tool_output_tokens`."""
    keep: Keep = "head"
    """Which end of a text that is too long stays: `tail` for logs, `head+tail` for command output."""
    marker: Literal["short", "full"] | None = None
    """`short`: `[1234 characters left out]`. `full`: tokens, rows or lines shown and how to get the rest, cut at line
    ends. None is `full` where `page_rows`, `hint` or `offload` is set, else `short`."""
    hint: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\n\r]*$")] | None = None
    """How to get less, in the marker: `Narrow with status=...`; None says `Narrow the call.`"""
    offload: bool = False
    """Keep the whole output for the episode, and offer the tool `read_output` for the rest of it."""

    @property
    def projection(self) -> ProjectSpec | None:
        """The one that holds: `project`, or the picked profile."""
        return self.profiles[self.profile] if self.profile is not None else self.project

    @property
    def has_full_marker(self) -> bool:
        """Whether markers say what is shown and how to get the rest."""
        return self.marker == "full" or bool(self.offload or self.page_rows or self.hint)

    @model_validator(mode="after")
    def _fits_together(self) -> OutputSpec:
        if self.profile is not None and self.profile not in self.profiles:
            raise ValueError(f"profile is {self.profile!r}, but profiles has {', '.join(self.profiles) or 'none'}")
        if self.profile is not None and self.project is not None:
            raise ValueError("both project and profile are given; keep one of them")
        if self.page_rows is not None and self.keep != "head":
            raise ValueError(f"page_rows shows the first rows, but keep is {self.keep!r}; leave one of them out")
        if self.marker == "short" and (self.offload or self.page_rows or self.hint):
            raise ValueError(
                "marker is 'short', but page_rows, hint and offload speak through a full one; leave it out"
            )
        return self


def output_spec_for(name: str, outputs: Mapping[str, OutputSpec]) -> OutputSpec:
    """The settings of the tool `name`: under its own name, else under the most specific glob, else the defaults.

    The glob with the most characters that are not wildcards wins, between equals the first in the alphabet: the order
    in which they are written means nothing, so that documents with the same hash behave the same. `read_output` gets
    the defaults in any case: its pages are shaped already.
    """
    if name == READ_OUTPUT_NAME:
        return _DEFAULTS
    if name in outputs:
        return outputs[name]
    globs = sorted(glob for glob in outputs if fnmatchcase(name, glob))
    best = max(globs, key=lambda glob: sum(char not in "*?[]" for char in glob), default=None)
    return _DEFAULTS if best is None else outputs[best]


_DEFAULTS = OutputSpec()
