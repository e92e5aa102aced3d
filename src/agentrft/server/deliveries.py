"""Sending webhook events: signed, at least once, over a day, one slow receiver never in another's way.

Signatures are those of Standard Webhooks (standardwebhooks.com), which `client.webhooks.unwrap()` of OpenAI's SDK
checks. The `webhook-id` of an event never changes, so that receivers can drop what they have had; the timestamp is each
try's own. Requests go through the network guard under the server's policy; redirects count as failures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from standardwebhooks.webhooks import Webhook

from agentrft.clock import SYSTEM_CLOCK, retry_after_s
from agentrft.errors import StoreFault, UserError
from agentrft.jobs.vault import Vault
from agentrft.net.exchange import Answer, Bounds, Lost, WebClient
from agentrft.net.policy import Forbidden
from agentrft.protocols import Clock
from agentrft.store.webhooks import Delivery, WebhookEndpoint, Webhooks

GIVE_UP_S = 24 * 3600.0
"""After the event; the last try is made then."""
FIRST_WAIT_S = 5.0
"""Triples with each try."""
LONGEST_WAIT_S = 4 * 3600.0
BOUNDS = Bounds(total_s=15.0, max_bytes=65_536)
LEASE_S = 60.0
"""A try takes a quarter of it at most."""
MOST_AT_ONCE = 32
_GONE = 410

_log = logging.getLogger(__name__)


def event_body(event_id: str, event_type: str, created_at: float, data: Mapping[str, Any]) -> bytes:
    """An event as OpenAI sends it."""
    event = {"id": event_id, "object": "event", "type": event_type, "created_at": int(created_at), "data": dict(data)}
    return json.dumps(event, separators=(",", ":")).encode()


def signed_headers(event_id: str, body: bytes, secrets: list[str], now: float) -> dict[str, str]:
    """The three headers of Standard Webhooks; one signature a secret."""
    at = datetime.fromtimestamp(int(now), tz=UTC)
    signatures = [Webhook(secret).sign(event_id, at, body.decode()) for secret in secrets]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": " ".join(signatures),
        "User-Agent": "agentrft-webhooks",
    }


def wait_s(tries: int, jitter: float) -> float:
    """How long to wait after that many tries; `jitter` from 0 to 1 takes up to a fifth off."""
    return min(FIRST_WAIT_S * 3.0 ** min(tries - 1, 20), LONGEST_WAIT_S) * (1.0 - 0.2 * jitter)


def secret_context(endpoint_id: str) -> str:
    """What a signing secret is sealed for: it opens for this endpoint only."""
    return f"webhook_endpoints/{endpoint_id}/signing_secret"


def opened_secrets(vault: Vault, endpoint: WebhookEndpoint, now: float) -> list[str]:
    """The secrets that sign for an endpoint at `now`; UserError when the master key is another one."""
    return [vault.unseal(sealed, secret_context(endpoint.id)) for sealed in endpoint.signing(now)]


async def send(client: WebClient, url: str, event_id: str, body: bytes, secrets: list[str], now: float) -> Answer:
    """What the receiver answers to a signed event; raises Lost, and under a local policy Forbidden."""
    return await client.post(url, body, signed_headers(event_id, body, secrets, now), BOUNDS)


class Deliveries:
    """Sends what the store owes to endpoints, until it is cancelled."""

    def __init__(
        self,
        webhooks: Webhooks,
        client: WebClient,
        vault: Vault,
        *,
        clock: Clock = SYSTEM_CLOCK,
        poll_s: float = 1.0,
    ) -> None:
        """`vault` opens signing secrets; `poll_s` is how often to look for new events."""
        self._webhooks = webhooks
        self._client = client
        self._vault = vault
        self._clock = clock
        self._poll_s = poll_s
        self._busy: set[str] = set()
        self._freed = asyncio.Event()

    async def run(self) -> None:
        """Look for due deliveries and send them; what is cut off when it is cancelled is due again after its lease."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._freed.clear()
                for delivery in await asyncio.to_thread(self._claim):
                    self._busy.add(delivery.endpoint.id)
                    tasks.create_task(self._deliver(delivery))
                # Not wait_for: on Python 3.11 that loses a cancellation that comes with the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_s):
                        await self._freed.wait()

    def _claim(self) -> list[Delivery]:
        try:
            due_at = self._webhooks.next_due(busy=tuple(self._busy))
            if due_at is None or due_at > self._clock.now():
                return []
            limit = MOST_AT_ONCE - len(self._busy)
            return self._webhooks.claim_due(limit=limit, lease_s=LEASE_S, busy=tuple(self._busy))
        except StoreFault as fault:
            _log.warning("webhooks wait for the store: %s", fault)
            return []

    async def _deliver(self, delivery: Delivery) -> None:
        """One try, and what becomes of the delivery; raises nothing."""
        try:
            answer, why = None, ""
            try:
                answer = await self._send(delivery)
            except (Lost, Forbidden, UserError) as error:
                why = str(error)
            await asyncio.to_thread(self._settle, delivery, answer, why)
        except StoreFault as fault:
            _log.warning("webhook %s: the store refused: %s", delivery.event_id, fault)
        finally:
            self._busy.discard(delivery.endpoint.id)
            self._freed.set()

    async def _send(self, delivery: Delivery) -> Answer:
        now = self._clock.now()
        secrets = opened_secrets(self._vault, delivery.endpoint, now)
        body = event_body(delivery.event_id, delivery.event_type, delivery.event_at, delivery.data)
        return await send(self._client, delivery.endpoint.url, delivery.event_id, body, secrets, now)

    def _settle(self, delivery: Delivery, answer: Answer | None, why: str) -> None:
        if answer is not None and 200 <= answer.status < 300:
            self._webhooks.delivered(delivery.seq)
            return
        why = f"status {answer.status}" if answer is not None else why
        left_s = delivery.event_at + GIVE_UP_S - self._clock.now()
        if left_s <= 0 or (answer is not None and answer.status == _GONE):
            _log.warning("webhook %s to %s given up: %s", delivery.event_id, delivery.endpoint.id, why)
            self._webhooks.give_up(delivery.seq)
            return
        asked_s = retry_after_s(answer.headers.get("retry-after"), self._clock.now()) if answer is not None else None
        pause_s = max(wait_s(delivery.tries, random.random()), min(asked_s or 0.0, LONGEST_WAIT_S))
        _log.info("webhook %s to %s failed (%s)", delivery.event_id, delivery.endpoint.id, why)
        self._webhooks.try_again(delivery.seq, wait_s=min(pause_s, left_s))
