"""All guards in the order in which every call meets them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentrft.tools.guardrails.access import check_access, is_allowed, rules_for
from agentrft.tools.guardrails.approval import Approver, Place, check_approval
from agentrft.tools.guardrails.arguments import check_arguments
from agentrft.tools.guardrails.budget import check_budgets
from agentrft.tools.guardrails.history import History, Request
from agentrft.tools.guardrails.loop import check_loops
from agentrft.tools.guardrails.order import check_order
from agentrft.tools.guardrails.plugin import Plugin, check_plugins
from agentrft.tools.guardrails.refusal import Refusal
from agentrft.tools.guardrails.repeats import check_repeat
from agentrft.tools.guardrails.secrets import Redaction
from agentrft.tools.guardrails.spec import WITHOUT_SECTION, Guardrails, Secrets
from agentrft.tools.source import Hints
from agentrft.types import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A job's guardrails, ready to be asked."""

    guardrails: Guardrails = WITHOUT_SECTION
    place: Place = "sandbox"
    approver: Approver | None = None
    plugins: Sequence[Plugin] = ()
    redaction: Redaction = field(default_factory=lambda: Redaction(Secrets()))

    @property
    def is_on(self) -> bool:
        return self.guardrails.mode != "off"

    @property
    def enforces(self) -> bool:
        return self.guardrails.mode == "enforce"

    def offers(self, name: str) -> bool:
        """Whether the model is told of a tool: what it could never call is not worth its attention."""
        return not self.enforces or is_allowed(name, self.guardrails)

    def request(self, number: int, tool: str, arguments: Mapping[str, Any] | str, hints: Hints) -> Request:
        """The call with the rules that hold for it; text stands for arguments that could not be read.

        A declared effect beats what the tool says about itself.
        """
        rules = rules_for(tool, self.guardrails)
        is_read = not isinstance(arguments, str)
        return Request(
            number=number,
            tool=tool,
            arguments=arguments if is_read else {},
            canonical=json.dumps(arguments, sort_keys=True, ensure_ascii=False) if is_read else arguments,
            rules=rules,
            writes=bool(hints.writes) if rules.effect is None else rules.effect == "write",
        )

    def check_tool(self, request: Request, available: Sequence[str]) -> Iterator[Refusal]:
        """Allow or deny, before anyone looks at the arguments."""
        refusal = check_access(request, self.guardrails, available) if self.is_on else None
        if refusal is not None:
            yield refusal

    def check_failing(self, request: Request, history: History) -> Iterator[Refusal]:
        """An objection to a call that cannot be made and was tried often enough."""
        refusal = check_loops(request, history, self.guardrails.loops) if self.is_on else None
        if refusal is not None:
            yield refusal

    def check(self, request: Request, history: History, item: Item) -> Iterator[Refusal]:
        """The objections to a call whose arguments fit their schema, one after the other as they are asked for."""
        if not self.is_on:
            return
        guardrails = self.guardrails
        guards: tuple[Callable[[], Refusal | None], ...] = (
            lambda: check_arguments(request, history),
            lambda: check_order(request, history),
            lambda: check_budgets(request, history, guardrails.budgets),
            lambda: check_loops(request, history, guardrails.loops),
            lambda: check_repeat(request, history),
            lambda: check_approval(request, self.place, self.approver, item),
            lambda: check_plugins(self.plugins, request, item),
        )
        yield from (refusal for guard in guards if (refusal := guard()) is not None)
