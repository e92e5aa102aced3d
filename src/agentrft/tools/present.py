"""From what a tool said to what the model sees: redact → shape → plugins → text that reads like instructions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentrft.tools.guardrails.history import Request
from agentrft.tools.guardrails.injection import annotated, delimited, suspect_text
from agentrft.tools.guardrails.policy import Policy
from agentrft.tools.limits import ToolLimits
from agentrft.tools.output import KeptOutputs, OutputFlag, OutputSpec, ShapedOutput, output_spec_for, shape_output
from agentrft.tools.steer import CallError, ErrorKind, steer
from agentrft.types import Intervention, Item, OutputStep

_UNREMARKABLE = frozenset({OutputFlag.PAGED, OutputFlag.TRUNCATED, OutputFlag.ANSI})
"""What shaping does every day; the rest is noted with the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping:
    """How a job's outputs reach the model."""

    outputs: Mapping[str, OutputSpec] = field(default_factory=dict)
    """By tool glob, as `agent.outputs` says."""
    template_tokens: tuple[str, ...] = ()
    """The model's own control tokens, which are taken out of outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An output as the model sees it."""

    text: str
    raw: str
    """As the tool gave it, without secrets."""
    bytes_in: int
    steps: tuple[OutputStep, ...]
    """Those that changed its size."""
    found: tuple[Intervention, ...]


class Presenter:
    """Presents the outputs of one episode."""

    def __init__(
        self, policy: Policy, limits: ToolLimits, shaping: Shaping, kept: KeptOutputs | None, item: Item
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._shaping = shaping
        self._kept = kept
        self._item = item

    def show(self, request: Request, said: str, *, error: ErrorKind | None, was_asked: bool) -> Shown:
        """What becomes of `said`; `error` when it is about a mistake of the model's.

        Guards look at what a tool said (`was_asked`), not at what they said themselves.
        """
        raw, secrets = self._policy.redaction(said)
        shaped = self._shape(request, raw) if error is None else self._steer(raw, error)
        found = [_noted("secrets", f"took out {name}") for name in secrets]
        found += [_noted(f"output.{flag}", "found in the output") for flag in shaped.flags if flag not in _UNREMARKABLE]
        text = shaped.text
        if self._policy.is_on and was_asked:
            text, more = self._guarded(request, text, is_error=error is not None)
            found += more
        steps = tuple(step for step in shaped.steps if step.bytes_in != step.bytes_out)
        return Shown(text=text, raw=raw, bytes_in=shaped.bytes_in, steps=steps, found=tuple(found))

    def _shape(self, request: Request, raw: str) -> ShapedOutput:
        return shape_output(
            raw,
            output_spec_for(request.tool, self._shaping.outputs),
            self._limits,
            template_tokens=self._template_tokens(),
            kept=self._kept,
            call_number=request.number,
        )

    def _steer(self, raw: str, error: ErrorKind) -> ShapedOutput:
        text = steer(
            CallError(kind=error, what=raw),
            self._policy.guardrails.errors.style,
            count_tokens=self._limits.count_tokens,
            template_tokens=self._template_tokens(),
        )
        return ShapedOutput(text=text, bytes_in=0, steps=())

    def _template_tokens(self) -> tuple[str, ...]:
        return self._shaping.template_tokens if self._policy.guardrails.injection.strip_template_tokens else ()

    def _guarded(self, request: Request, text: str, *, is_error: bool) -> tuple[str, list[Intervention]]:
        """What guards make of an output, and what they found in it."""
        policy, injection, found = self._policy, self._policy.guardrails.injection, []
        for plugin in policy.plugins:
            said = plugin.after(request, text, self._item)
            if said is not None:
                found.append(Intervention(rule=f"plugins.{plugin.name}", message=said, enforced=policy.enforces))
                text = said if policy.enforces else text
        suspect = suspect_text(text)
        if suspect is not None:
            acts = policy.enforces and injection.flag != "log"
            found.append(Intervention(rule="injection", message=f"reads like an instruction: {suspect}", enforced=acts))
            if acts:
                blocked = "error: the output reads like instructions and was kept back"
                text = annotated(text) if injection.flag == "annotate" else blocked
        if policy.enforces and injection.delimit and not is_error:
            text = delimited(text)
        return text, found


def _noted(rule: str, message: str) -> Intervention:
    return Intervention(rule=rule, message=message, enforced=True)
