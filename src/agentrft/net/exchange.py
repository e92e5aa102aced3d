"""One request to a service of a user's and its answer: bounded in time, pace and size, through the guard.

Redirects are answers like any other. Nothing of the environment is used: no proxy, no .netrc, no certificates of its
own. `Accept-Encoding: identity` is asked for; compressed answers are read all the same, and counted as what they unpack
to. A certificate must be valid for the URL's host, under certifi's authorities.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrft.net.policy import Forbidden, NetworkPolicy

if TYPE_CHECKING:
    from agentrft.net.connections import Connections
    from agentrft.net.resolve import Resolve

UNREACHABLE = "could not be reached"
"""All that a public policy says of a connection that failed: what is refused and what is not there look alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one request may take."""

    total_s: float
    max_bytes: int
    """Of the answer's body, unpacked."""
    connect_s: float = 5.0
    """Name look-up and connection; TLS may take as long again."""
    progress_bytes: int = 1000
    """What has to arrive in each `progress_s`, from the answer's head on: a service that drips counts as down."""
    progress_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a service answered."""

    status: int
    headers: Mapping[str, str]
    """Names in small letters; of a header that comes twice, the last."""
    body: bytes
    """Unpacked, `max_bytes` at most."""
    was_cut: bool
    """The body is longer than `max_bytes`; the rest was not read."""


class Lost(Exception):
    """No usable answer. The request may have arrived; sending it again may help."""


class WebClient:
    """Sends requests and keeps connections for the next ones. Serves one event loop."""

    def __init__(self, policy: NetworkPolicy, *, resolve: Resolve | None = None) -> None:
        """Opens no connection yet. `resolve` looks names up; the system's way when it is left out."""
        self._policy = policy
        self._resolve = resolve
        self._connections: Connections | None = None
        self._is_closed = False

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], bounds: Bounds) -> Answer:
        """The service's answer to `POST url`; `url` and `headers` have passed the checks of `secrets`.

        Raises Lost when there is none, and, under a local policy, Forbidden for an address that nobody may ask.
        """
        import httpcore  # 0.1 s to import, and most jobs ask nobody

        from agentrft.net.connections import Connections

        if self._is_closed:
            raise Lost("the job has closed its connections")
        self._connections = self._connections or Connections(self._policy, self._resolve)
        try:
            async with asyncio.timeout(bounds.total_s):
                return await self._exchange(self._connections, url, body, headers, bounds)
        except TimeoutError as error:
            raise Lost(f"no answer within {bounds.total_s:g} s") from error
        except Forbidden as error:
            if self._policy.is_local:
                raise
            raise Lost(UNREACHABLE) from error
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            why = f"{UNREACHABLE} ({error})" if self._policy.is_local else UNREACHABLE
            raise Lost(why) from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise Lost(f"broke off ({type(error).__name__}: {error})") from error

    async def close(self) -> None:
        """Drop all connections; requests in flight and later ones end with Lost."""
        self._is_closed = True
        if self._connections is not None:
            await self._connections.close()

    async def _exchange(
        self, connections: Connections, url: str, body: bytes, headers: Mapping[str, str], bounds: Bounds
    ) -> Answer:
        self._policy.check_url(url)
        sent = {**headers, "Content-Type": "application/json", "Accept-Encoding": "identity"}
        async with connections.post(url, body, sent, bounds.connect_s) as response:
            received = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in response.headers}
            data, was_cut = await _read(response.aiter_stream(), _Unpacker(received), bounds)
            return Answer(status=response.status, headers=received, body=data, was_cut=was_cut)


async def _read(pieces: AsyncIterator[bytes], unpacker: _Unpacker, bounds: Bounds) -> tuple[bytes, bool]:
    """The unpacked body as far as it may go, and whether there is more."""
    data, since = bytearray(), 0
    now = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(bounds.progress_s) as pace:
            async for piece in pieces:
                data += unpacker.unpack(piece, bounds.max_bytes + 1 - len(data))
                if len(data) > bounds.max_bytes:
                    return bytes(data[: bounds.max_bytes]), True
                since += len(piece)
                if since >= bounds.progress_bytes:
                    since = 0
                    pace.reschedule(now() + bounds.progress_s)
    except TimeoutError as error:
        raise Lost(f"sent less than {bounds.progress_bytes} bytes in {bounds.progress_s:g} s") from error
    return bytes(data), False


class _Unpacker:
    """Unpacks a body piece by piece, never more than is asked for: 64 kB may unpack to 64 MB."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
            raise Lost(f"answered in the encoding {encoding[:40]!r}, which was not asked for")
        is_packed = encoding not in ("identity", "")
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32) if is_packed else None

    def unpack(self, piece: bytes, most: int) -> bytes:
        """At most `most` bytes, 1 or more; what is left over then is lost."""
        if self._zlib is None:
            return piece[:most]
        try:
            return self._zlib.decompress(piece, most)
        except zlib.error as error:
            raise Lost(f"answered in a broken encoding ({error})") from error
