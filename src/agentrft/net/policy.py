"""Which services may be asked: decided for a URL before anything is sent, and again for every connection.

Two policies. `local` is for a person at the keyboard, who may reach whatever the machine reaches. `public` is for a
server that others give addresses to: public addresses over https only, and what its operator lists. Neither reaches a
cloud's metadata service. The list belongs into the operator's configuration, never into a job.

Not stopped here: a public service that forwards requests inwards, a router that sends public addresses to machines
inside, DNS answers as a way out for data, and how long a refusal takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from agentrft.errors import UserError
from agentrft.net.addresses import (
    METADATA_NAMES,
    Address,
    Network,
    is_metadata,
    is_public,
    parse,
    parse_network,
    plain,
)

PORTS = frozenset({80, 443, 8443})
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Forbidden(Exception):
    """The policy does not allow this address; the message is for the operator and for whoever wrote the URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Scheme, host and port: what shares connections, a concurrency limit and a breaker."""

    scheme: str
    host: str
    """In small letters, without brackets and final dot."""
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """The server of a checked URL (`secrets.web_address`)."""
        parts = urlsplit(url)
        host = (parts.hostname or "").removesuffix(".")
        return cls(scheme=parts.scheme, host=host, port=parts.port or _DEFAULT_PORTS[parts.scheme])

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """Made by `local` or `public`."""

    is_local: bool
    """Everything but metadata services is allowed, and errors say why a connection failed."""
    servers: frozenset[tuple[str, int]] = frozenset()
    """Listed hosts and ports; IP addresses in their shortest form."""
    networks: tuple[Network, ...] = ()

    @classmethod
    def local(cls) -> Self:
        """What the person who started the program may reach: everything but cloud metadata."""
        return cls(is_local=True)

    @classmethod
    def public(cls, allow: Iterable[str] = (), *, param: str = "allow") -> Self:
        """Public addresses over https on ports 80, 443 and 8443, and what is listed, over http too and on any port.

        `allow` holds `host:port` (`tools.internal:8080`, `10.0.0.5:9000`, `[fd00::5]:9000`) and networks
        (`10.0.0.0/8`). Raises UserError, blaming `param`, for anything else.
        """
        servers: set[tuple[str, int]] = set()
        networks: list[Network] = []
        for entry in allow:
            network = parse_network(entry) if "/" in entry else None
            if network:
                networks.append(network)
            else:
                servers.add(_host_and_port(entry, param))
        return cls(is_local=False, servers=frozenset(servers), networks=tuple(networks))

    def check_url(self, url: str) -> None:
        """Raises Forbidden for what can be refused without looking the name up; `url` has passed `web_address`."""
        server = Server.of(url)
        address = parse(server.host)
        if address is not None:
            return self.check(server, [address])
        self._check_name(server)
        may_be_listed = self.networks or any(parse(host) and port == server.port for host, port in self.servers)
        if not (self._lists_name(server) or may_be_listed):
            self._check_scheme_and_port(server)
        return None

    def check(self, server: Server, addresses: Sequence[Address]) -> None:
        """Raises Forbidden unless a connection to any of the addresses, which `server.host` has, is allowed."""
        self._check_name(server)
        for address in addresses:
            if is_metadata(address):
                raise Forbidden(f"{server} is a cloud's metadata service, which nobody may ask")
            if self._lists_name(server) or self._lists(address, server.port):
                continue
            self._check_scheme_and_port(server)
            if not is_public(address):
                raise Forbidden(f"{server} is at {address}, which is not public; its operator can list `{server}`")

    def _check_name(self, server: Server) -> None:
        if server.host in METADATA_NAMES:
            raise Forbidden(f"{server} is a cloud's metadata service, which nobody may ask")

    def _check_scheme_and_port(self, server: Server) -> None:
        if self.is_local:
            return
        if server.scheme != "https":
            raise Forbidden(f"{server} is to be asked over {server.scheme}, expected https; operators can list it")
        if server.port not in PORTS:
            known = ", ".join(map(str, sorted(PORTS)))
            raise Forbidden(f"{server} has port {server.port}, expected one of {known}; operators can list it")

    def _lists_name(self, server: Server) -> bool:
        return self.is_local or (server.host, server.port) in self.servers

    def _lists(self, address: Address, port: int) -> bool:
        address = plain(address)
        return (str(address), port) in self.servers or any(address in network for network in self.networks)


def _host_and_port(entry: str, param: str) -> tuple[str, int]:
    found = re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", entry)
    host, port = (found[1], int(found[2])) if found else ("", 0)
    address = parse(host)
    if not 0 < port < 65536 or (host.startswith("[") and not address):
        message = f"`{param}` lists {entry!r}, expected `host:port` or a network such as `10.0.0.0/8`; mend the entry"
        raise UserError(message, param=param)
    return (str(plain(address)) if address else host.lower().removesuffix("."), port)
