"""Guards of the user's own, or of another library behind a few lines of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentrft.errors import UserError
from agentrft.tools.guardrails.history import Request
from agentrft.tools.guardrails.refusal import Refusal
from agentrft.types import Item


class Plugin:
    """One of the job's `guardrails.plugins`: an object with `before_call`, `after_result`, or both."""

    def __init__(self, name: str, target: Any) -> None:
        """`target` is a class, which is built without arguments, or an object; raises UserError when it has no hook."""
        self.name = name
        owner = target() if isinstance(target, type) else target
        self._before = getattr(owner, "before_call", None)
        self._after = getattr(owner, "after_result", None)
        if self._before is None and self._after is None:
            raise UserError(
                f"guardrails.plugins: {name} has neither `before_call(tool, arguments, item)` nor "
                "`after_result(tool, arguments, output, item)`; give it one of them",
                param="guardrails.plugins",
                code="invalid_guardrails",
            )

    def before(self, request: Request, item: Item) -> str | None:
        """What is told to the model instead of making the call; None to let it through."""
        return self._before(request.tool, dict(request.arguments), item) if self._before else None

    def after(self, request: Request, output: str, item: Item) -> str | None:
        """What is shown to the model instead of the output; None to leave it."""
        return self._after(request.tool, dict(request.arguments), output, item) if self._after else None


def check_plugins(plugins: Sequence[Plugin], request: Request, item: Item) -> Refusal | None:
    """The first plugin's objection. What a plugin raises is not caught: a broken guard must not let calls through."""
    for plugin in plugins:
        message = plugin.before(request, item)
        if message is not None:
            return Refusal(rule=f"plugins.{plugin.name}", message=message)
    return None
