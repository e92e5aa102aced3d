"""Which addresses the server answers to: a web page must not reach it by having its own name resolve to this machine
(DNS rebinding), nor call it from another page's origin. Odd characters in addresses end here too.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from agentrft.server.config import ServerConfig
from agentrft.server.errors import ApiError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class OriginGuard:
    """Middleware: refuses other hosts' names, other pages' origins, and control characters in the address."""

    def __init__(self, app: ASGIApp, config: ServerConfig, listens_on: str) -> None:
        self._app = app
        self._origins = frozenset(config.origins)
        self._is_wildcard = listens_on in ("0.0.0.0", "::", "")
        own = {socket.gethostname().lower()} if self._is_wildcard else {bracketed(listens_on.lower())}
        self._hosts = LOOPBACK_NAMES | own | frozenset(config.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._check(scope)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        if _CONTROL.search(scope["path"]):
            raise ApiError(404, "no such address: it holds a control character", code="unknown_url")
        if b"%00" in scope["query_string"]:
            raise ApiError(400, "the query holds a NUL character; leave it out", code="invalid_value")
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if not self._is_ours(re.sub(r":[0-9]*$", "", host)):
            message = (
                f"this server does not answer to the name {host!r}; its operator can list it (`hosts` in server.yaml)"
            )
            raise ApiError(403, message, code="host_not_allowed")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in self._origins and not _is_same(origin.lower(), host):
            message = f"pages of {origin!r} may not call this server; its operator can list it under `origins`"
            raise ApiError(403, message, code="origin_not_allowed")

    def _is_ours(self, name: str) -> bool:
        if name in self._hosts or "*" in self._hosts:
            return True
        # An address cannot be rebound, so where every address of the machine is listened on, any will do.
        return self._is_wildcard and _is_address(name)


def bracketed(host: str) -> str:
    """The host as a URL writes it."""
    return f"[{host}]" if ":" in host else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _is_same(origin: str, host: str) -> bool:
    try:
        return bool(host) and urlsplit(origin).netloc == host
    except ValueError:
        return False
