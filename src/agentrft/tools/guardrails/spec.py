"""What a job may say under `guardrails`. Every field takes effect; `docs/guardrails.md` explains them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_COUNTS = {"": 1, "k": 1_000, "m": 1_000_000}


def _seconds(value: Any) -> Any:
    """`10s`, `500ms`, `2m` as seconds; plain numbers are seconds already."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)\s*", value) if isinstance(value, str) else None
    return float(found[1]) * _SECONDS[found[2]] if found else value


def _count(value: Any) -> Any:
    """`64k` as 64,000."""
    found = re.fullmatch(r"\s*(\d+)\s*([km]?)\s*", value, re.IGNORECASE) if isinstance(value, str) else None
    return int(found[1]) * _COUNTS[found[2].lower()] if found else value


def _pattern(value: Any) -> Any:
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"the pattern {value!r} cannot be read ({error})") from error
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_count), Field(ge=1)]
Pattern = Annotated[str, BeforeValidator(_pattern), Field(min_length=1, max_length=1_000)]
Glob = Annotated[str, Field(min_length=1, max_length=200)]
"""A tool's name, `*` and `?` for what may vary; nothing is added to it."""
Target = Annotated[str, Field(pattern=r"^[^:]+\.py:[A-Za-z_]\w*$")]
"""`file.py:NAME`, the file relative to the job file."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArgumentRule(_Section):
    """What an argument must be, beyond its schema."""

    seen_in: list[Glob] = []
    """Tools in whose earlier output the value must have stood; `prompt` means the item's own messages."""
    minimum: float | None = None
    maximum: float | None = None
    pattern: Pattern | None = None
    """Searched for in the value's text."""
    starts_with: str | None = None
    one_of: list[Any] | None = None


class ApprovalByPlace(_Section):
    """Other answers where episodes are played and where real users are served."""

    sandbox: Literal["allow", "ask", "deny", "dry_run"] = "allow"
    production: Literal["allow", "ask", "deny", "dry_run"] = "ask"


class ToolRules(_Section):
    """What holds for the tools that a glob matches."""

    effect: Literal["read", "write"] | None = None
    """Whether a call changes something; None takes the tool's own word for it, and a read where it says nothing."""
    max_calls: int | None = Field(default=None, ge=0)
    timeout: Seconds | None = None
    """Of one try; `agent.limits.tool_timeout_s` where absent."""
    polling: bool | None = None
    """The same call again is no loop."""
    idempotent: Literal["by_args", "by_key"] | None = None
    """`by_args`: the same call again gives back the first result. `by_key`: the tool recognises a repeated `call_id`,
    so that a write whose answer was lost may be sent again."""
    approval: Literal["allow", "ask", "deny", "dry_run"] | ApprovalByPlace | None = None
    dry_run_argument: str | None = None
    """The boolean argument that turns a call into a preview; needed for `dry_run`."""
    require_before: list[Glob] = []
    """Tools of which each must have answered before."""
    forbid_after: list[Glob] = []
    """Tools after whose success this one may not be called."""
    args: dict[str, ArgumentRule] = {}
    deny_args: dict[str, list[Pattern]] = {}
    """Patterns that the text of an argument must not contain."""


class Budgets(_Section):
    """Per episode; null for no limit."""

    calls: Count | None = 40
    mutating_calls: Count | None = 10
    tool_seconds: Seconds | None = 300.0
    result_tokens: Count | None = 64_000
    tell_model: bool = True
    """Say what is left once four fifths are used up."""


class Loops(_Section):
    """How often the same may happen before the model is told; null never tells it."""

    same_call_same_result: int | None = Field(default=3, ge=2)
    same_call_error: int | None = Field(default=3, ge=2)
    alternating: int | None = Field(default=6, ge=4)
    """Calls A, B, A, B, … in a row."""
    action: Literal["hint", "end_episode"] = "hint"


class Retries(_Section):
    """Of calls that may succeed if tried again; see docs/tools.md for which."""

    transient: int = Field(default=3, ge=0, le=10)
    backoff: tuple[Seconds, Seconds] = (0.5, 8.0)
    """Longest wait before the first retry, and before any."""

    @model_validator(mode="after")
    def _grows(self) -> Retries:
        if self.backoff[0] > self.backoff[1]:
            raise ValueError(
                f"backoff begins with {self.backoff[0]:g} s and ends with {self.backoff[1]:g} s; swap them"
            )
        return self


class Errors(_Section):
    """How mistakes are told to the model."""

    style: Literal["line", "structured"] = "line"
    include_example: bool = True
    """Whether a schema error ends with one valid call."""


class Injection(_Section):
    """What is done about text in tool outputs that could pass for instructions."""

    delimit: bool = False
    """Put each output between `<tool_output>` and `</tool_output>`."""
    strip_template_tokens: bool = True
    """Take the model's own role markers out of outputs; they could not forge a role anyway."""
    flag: Literal["log", "annotate", "block"] = "log"


class Secrets(_Section):
    """What is replaced by `[redacted:NAME]` in every tool output and fault, so that it is nowhere later."""

    patterns: dict[str, Pattern] = {}
    env: list[str] = []
    """Environment variables whose values are secrets."""


class Guardrails(_Section):
    """Rules that every tool call is held to."""

    mode: Literal["off", "observe", "enforce"] = "enforce"
    """`observe` notes what it would have done and lets it happen."""
    unmatched: Literal["allow", "reject"] = "reject"
    """What happens to a tool that no entry of `tools` matches, once there are entries."""
    tools: dict[Glob, ToolRules] = {}
    """All entries that match a tool hold for it; where two set the same field, the later one."""
    deny: list[Glob] = []
    budgets: Budgets = Budgets()
    loops: Loops = Loops()
    retries: Retries = Retries()
    errors: Errors = Errors()
    injection: Injection = Injection()
    secrets: Secrets = Secrets()
    approver: Target | None = None
    """`(tool, arguments, item) -> bool`, asked where approval is `ask`."""
    plugins: list[Target] = []
    """Objects with `before_call(tool, arguments, item)`, `after_result(tool, arguments, output, item)`, or both; a text
    that they return is told to the model instead."""


WITHOUT_SECTION = Guardrails(mode="observe")
"""What holds for a job that says nothing about guardrails."""
