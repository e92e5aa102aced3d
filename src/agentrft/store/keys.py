"""API keys: shown once, kept as a hash.

A key is `sk-<id>-<secret>-<check>`: 8 characters that name it, 32 random bytes in base 62, and 6 characters that tell a
mistyped key from an unknown one without asking the database. 256 random bits need no slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import Row, insert, select, update

from agentrft.errors import StoreFault, UserError
from agentrft.store.database import Database
from agentrft.store.schema import KEYS

KeyScope = Literal[
    "files:read",
    "files:write",
    "jobs:read",
    "jobs:write",
    "graders:run",
    "models:read",
    "models:write",
    "webhooks:read",
    "webhooks:write",
    "metrics:read",
    "admin",
]
"""What a key may do; `admin` may do everything in its project."""

SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH, _SECRET_LENGTH, _CHECK_LENGTH = 8, 43, 6
"""62^43 > 2^256 > 62^42, and 62^6 > 2^32."""
_FORM = re.compile(r"sk-([0-9A-Za-z]{8})-([0-9A-Za-z]{43})-([0-9A-Za-z]{6})")
_PROJECT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_USE_NOTED_EVERY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What is kept of a key. Times are seconds since the epoch."""

    id: str
    project: str
    name: str
    scopes: tuple[KeyScope, ...]
    created_at: float
    expires_at: float | None
    last_used_at: float | None
    """To the minute."""
    revoked_at: float | None


class Keys:
    """The store's API keys."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._exist = False
        """Known to; nothing takes a key away, so that it is looked up until it is so."""

    def create(
        self, project: str, scopes: Sequence[str], *, name: str = "", expires_at: float | None = None
    ) -> tuple[Key, str]:
        """A new key, and its text, which nothing can show again. UserError for a bad project or scope."""
        if not _PROJECT.fullmatch(project):
            message = f"project {project!r}: expected 1 to 64 letters, digits, `-` and `_`, for example proj_search"
            raise UserError(message, param="project")
        if unknown := sorted(set(scopes) - set(SCOPES)):
            message = f"scope {unknown[0]!r} is not known; expected one of {', '.join(SCOPES)}"
            raise UserError(message, param="scope")
        if not scopes:
            raise UserError(f"a key without scopes can do nothing; expected some of {', '.join(SCOPES)}", param="scope")
        key_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
        text = _text(key_id, _base62(secrets.randbits(256), _SECRET_LENGTH))
        row = {
            "id": key_id,
            "project_id": project,
            "name": name,
            "sha256": _sha256(text),
            "scopes": [scope for scope in SCOPES if scope in scopes],
            "created_at": self._database.clock.now(),
            "expires_at": expires_at,
        }
        with self._database.write() as connection:
            connection.execute(insert(KEYS), row)
        return self.get(key_id), text

    def check(self, text: str) -> Key | None:
        """The key of that text, unless it is unknown, revoked or expired; its use is noted where the store lets it."""
        found = _FORM.fullmatch(text)
        if not found or _text(found[1], found[2]) != text:
            return None
        with self._database.read() as connection:
            row = connection.execute(select(KEYS).where(KEYS.c.id == found[1])).first()
        now = self._database.clock.now()
        if row is None or not hmac.compare_digest(row.sha256, _sha256(text)):
            return None
        if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
            return None
        if now - (row.last_used_at or 0.0) > _USE_NOTED_EVERY_S:
            # A disk that is full must not keep anyone from reading.
            with suppress(StoreFault), self._database.write() as connection:
                connection.execute(update(KEYS).where(KEYS.c.id == row.id).values(last_used_at=now))
        return _key(row)

    def exist(self) -> bool:
        """Whether there is, or ever was, a key: revoking the last one opens nothing."""
        if not self._exist:
            with self._database.read() as connection:
                self._exist = connection.execute(select(KEYS.c.seq).limit(1)).first() is not None
        return self._exist

    def get(self, key_id: str) -> Key:
        """The key of that id; UserError if there is none."""
        with self._database.read() as connection:
            row = connection.execute(select(KEYS).where(KEYS.c.id == key_id)).first()
        if row is None:
            message = f"no key {key_id!r}; `agentrft keys list` shows those there are"
            raise UserError(message, param="key", code="not_found")
        return _key(row)

    def list(self) -> list[Key]:
        """Every key, oldest first; revoked ones too."""
        with self._database.read() as connection:
            return [_key(row) for row in connection.execute(select(KEYS).order_by(KEYS.c.seq))]

    def revoke(self, key_id: str) -> Key:
        """End the key at once, for good; the time of the first revocation stays. UserError if there is none."""
        with self._database.write() as connection:
            now = self._database.clock.now()
            change = update(KEYS).where(KEYS.c.id == key_id, KEYS.c.revoked_at.is_(None))
            connection.execute(change.values(revoked_at=now))
        return self.get(key_id)


def _text(key_id: str, secret: str) -> str:
    check = _base62(zlib.crc32(f"{key_id}-{secret}".encode()), _CHECK_LENGTH)
    return f"sk-{key_id}-{secret}-{check}"


def _base62(number: int, length: int) -> str:
    return "".join(_ALPHABET[number // 62**place % 62] for place in range(length))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        project=row.project_id,
        name=row.name,
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
