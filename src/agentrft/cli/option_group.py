"""Options that belong together as one dataclass, so that a command takes one parameter for all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

Command = Callable[..., None]


def takes(name: str, group: type) -> Callable[[Command], Command]:
    """Decorates a command whose parameter `name` is a `group`: each field of it becomes an option instead."""

    def decorate(command: Command) -> Command:
        own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != name]
        options = inspect.signature(group, eval_str=True).parameters.values()
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *options)]

        def run(**given: Any) -> None:
            made = group(**{field.name: given.pop(field.name) for field in fields(group)})
            command(**given, **{name: made})

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        # Typer reads a command's options off its signature.
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate
