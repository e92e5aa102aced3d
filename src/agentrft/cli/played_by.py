"""Who plays, as options that several commands share: a model of ours, or one behind an OpenAI-compatible API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from agentrft.diagnose import Price
    from agentrft.protocols import ChatEndpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayedBy:
    """The options as given; each field is one."""

    model: str | None = typer.Option(
        None, help="Model, trained model, job id or checkpoint; default: the job's own.", metavar="MODEL"
    )
    endpoint: str | None = typer.Option(
        None, help="Base URL of an OpenAI-compatible API that plays instead (http://localhost:8000/v1).", metavar="URL"
    )
    endpoint_model: str | None = typer.Option(None, help="Name of the model at the endpoint.", metavar="NAME")
    api_key_env: str | None = typer.Option(
        None, help="Environment variable with the endpoint's key.", metavar="VARIABLE"
    )
    concurrency: int = typer.Option(16, min=1, max=256, help="Episodes at once with an endpoint.")

    def at(self) -> ChatEndpoint | None:
        """The API that plays; None for our own engine. Raises UserError for options that do not go together."""
        from agentrft.build import require_torch
        from agentrft.errors import UserError
        from agentrft.protocols import ChatEndpoint

        if self.endpoint is None:
            for name in ("endpoint_model", "api_key_env"):
                if getattr(self, name) is not None:
                    option = f"--{name.replace('_', '-')}"
                    raise UserError(f"got {option} without --endpoint; give the address too", param=option)
            require_torch()
            return None
        if self.endpoint_model is None:
            raise UserError(
                "got --endpoint without --endpoint-model; expected both, the address and the model there",
                param="--endpoint-model",
            )
        if self.model is not None:
            raise UserError("got --model and --endpoint; expected one of them: who plays", param="--model")
        return ChatEndpoint(
            model=self.endpoint_model,
            base_url=self.endpoint,
            api_key_env=self.api_key_env,
            max_concurrency=self.concurrency,
            temperature=1.0,  # as in training; an API's own default may be another one
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidBy(PlayedBy):
    """The same, and what an endpoint costs."""

    price: str | None = typer.Option(
        None, help="USD per million tokens read and written at the endpoint, for the estimate.", metavar="READ/WRITTEN"
    )

    def paid(self) -> Price | None:
        """The price; raises UserError for what is none, and for one without an endpoint."""
        from agentrft.diagnose import Price
        from agentrft.errors import UserError

        if self.price is None:
            return None
        if self.endpoint is None:
            raise UserError("got --price without --endpoint; give the address too", param="--price")
        read, slash, written = self.price.partition("/")
        try:
            price = Price(prompt=float(read), completion=float(written))
        except ValueError:
            price = None
        if price is None or not slash or not (0 <= price.prompt < 1e6 and 0 <= price.completion < 1e6):
            raise UserError(
                f"--price {self.price}: expected USD per million tokens read and written, such as 0.15/0.60",
                param="--price",
            )
        return price
