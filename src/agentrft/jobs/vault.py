"""Secrets at rest: values that only this installation's master key opens.

A sealed value is `sealed:1:<master key id>:<wrapped key>:<value>`: the value under AES-256-GCM with a key of its own,
and that key under the master key. Both are bound to a context (project, object, field), so that a sealed value copied
to another place opens there no more. The master key is `AGENTRFT_HOME/master.key` (mode 0600, made when first needed),
or `AGENTRFT_MASTER_KEY`; there may be several, the first of which seals. Changing it rewraps keys and touches no value.

Not stopped: whoever can read the master key's file, or this process's memory.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentrft.errors import UserError
from agentrft.home import home
from agentrft.net.secrets import MASK
from agentrft.store.artifacts import fsync_folder

ENVIRONMENT = "AGENTRFT_MASTER_KEY"
PREFIX = "sealed:1:"
_KEY_BYTES, _NONCE_BYTES = 32, 12


@dataclass(frozen=True, slots=True)
class MasterKey:
    """32 bytes, and what names them in sealed values."""

    id: str
    key: bytes

    @classmethod
    def made(cls) -> MasterKey:
        """A new random one."""
        return cls(secrets.token_hex(4), secrets.token_bytes(_KEY_BYTES))

    @classmethod
    def read(cls, line: str, source: str) -> MasterKey:
        """The key that a line `id:base64` holds; UserError, without the line, for anything else."""
        key_id, _, encoded = line.strip().partition(":")
        with suppress(binascii.Error, ValueError):
            key = base64.b64decode(encoded, validate=True)
            if len(key) == _KEY_BYTES and key_id.isalnum():
                return cls(key_id, key)
        message = f"{source} holds no master key, expected `id:` and 32 bytes in base64; restore it from a backup"
        raise UserError(message, param=ENVIRONMENT, code="invalid_master_key")

    def line(self) -> str:
        """What `read` reads."""
        return f"{self.id}:{base64.b64encode(self.key).decode()}"


class Vault:
    """Seals and opens; safe to use from several threads."""

    def __init__(self, keys: Callable[[], tuple[MasterKey, ...]]) -> None:
        """Asks for the keys each time, so that a new one is used at once: the first seals, all of them open."""
        self._keys = keys

    def seal(self, text: str, context: str) -> str:
        """The text, sealed for that context: the same words have to be given to open it."""
        key, master = secrets.token_bytes(_KEY_BYTES), self._keys()[0]
        wrapped = _encrypt(master.key, key, master.id)
        return f"{PREFIX}{master.id}:{wrapped}:{_encrypt(key, text.encode(), context)}"

    def unseal(self, sealed: str, context: str) -> str:
        """The text; UserError when the master key is another one, or the value was made for another context."""
        key_id, wrapped, value = self._parts(sealed)
        try:
            return _decrypt(self._unwrap(key_id, wrapped), value, context).decode()
        except (InvalidTag, binascii.Error, ValueError) as error:
            message = "a sealed value was damaged, or moved here from another object; set the secret anew"
            raise UserError(message, code="secret_unreadable") from error

    def rewrap(self, sealed: str) -> str:
        """The same sealed value under the first master key."""
        key_id, wrapped, value = self._parts(sealed)
        master = self._keys()[0]
        if key_id == master.id:
            return sealed
        try:
            key = self._unwrap(key_id, wrapped)
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise UserError("a sealed value is damaged; set the secret anew", code="secret_unreadable") from error
        return f"{PREFIX}{master.id}:{_encrypt(master.key, key, master.id)}:{value}"

    def _parts(self, sealed: str) -> tuple[str, str, str]:
        parts = sealed.removeprefix(PREFIX).split(":")
        if not is_sealed(sealed) or len(parts) != 3:
            raise UserError("a sealed value is damaged; set the secret anew", code="secret_unreadable")
        return parts[0], parts[1], parts[2]

    def _unwrap(self, key_id: str, wrapped: str) -> bytes:
        keys = self._keys()
        master = next((key for key in keys if key.id == key_id), None)
        if master is None:
            known = ", ".join(key.id for key in keys)
            message = (
                f"a secret was sealed with the master key {key_id}, this installation has {known}; restore that key "
                f"into {master_file()} or {ENVIRONMENT}"
            )
            raise UserError(message, param=ENVIRONMENT, code="secret_unreadable")
        return _decrypt(master.key, wrapped, master.id)


def is_sealed(value: Any) -> bool:
    """Whether `Vault.seal` made it."""
    return isinstance(value, str) and value.startswith(PREFIX)


def master_file() -> Path:
    """Where the master keys lie, one a line, the one that seals first."""
    return home() / "master.key"


def open_vault() -> Vault:
    """The vault under this installation's master keys; the first use makes one where there is none."""
    return Vault(master_keys)


def master_keys() -> tuple[MasterKey, ...]:
    """The environment's keys, else the file's; the file is made where it is missing."""
    if given := os.environ.get(ENVIRONMENT):
        return tuple(MasterKey.read(line, ENVIRONMENT) for line in given.split(","))
    path = master_file()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _make(path)
    try:
        lines = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        message = f"the master key {path} cannot be read ({error}); mend it, or restore it from a backup"
        raise UserError(message, param=ENVIRONMENT, code="invalid_master_key") from None
    if not lines:
        raise UserError(f"the master key {path} is empty; restore it from a backup", code="invalid_master_key")
    return tuple(MasterKey.read(line, str(path)) for line in lines)


def write_master_keys(keys: tuple[MasterKey, ...]) -> None:
    """Replace the file's keys at once, or not at all."""
    draft = _draft(master_file(), keys)
    draft.replace(master_file())
    fsync_folder(master_file().parent)  # before anything is sealed under a key that a power cut could take back


def seal_fields(plain: Any, masked: Any, seal: Callable[[str, str], str], path: str = "") -> Any:
    """`plain` with every value that `masked` hides sealed; `seal` gets the value and its dotted path."""
    if isinstance(plain, Mapping) and isinstance(masked, Mapping):
        return {key: seal_fields(part, masked.get(key), seal, f"{path}.{key}") for key, part in plain.items()}
    if isinstance(plain, list) and isinstance(masked, list):
        pairs = zip(plain, masked, strict=True)
        return [seal_fields(part, hidden, seal, f"{path}.{n}") for n, (part, hidden) in enumerate(pairs)]
    # A text that only looks sealed is sealed as well, so that whatever looks so, is.
    if isinstance(plain, str) and ((masked == MASK and plain != MASK) or is_sealed(plain)):
        return seal(plain, path.removeprefix("."))
    return plain


def unseal_fields(document: Any, unseal: Callable[[str, str], str], path: str = "") -> Any:
    """What `seal_fields` was given; values that were never sealed, as older versions kept them, stay as they are."""
    if isinstance(document, Mapping):
        return {key: unseal_fields(part, unseal, f"{path}.{key}") for key, part in document.items()}
    if isinstance(document, list):
        return [unseal_fields(part, unseal, f"{path}.{n}") for n, part in enumerate(document)]
    return unseal(document, path.removeprefix(".")) if is_sealed(document) else document


def masked_fields(document: Any) -> Any:
    """The document as it may be shown: a mask for every sealed value."""
    return rewrap_fields(document, lambda sealed: MASK)


def rewrap_fields(document: Any, rewrap: Callable[[str], str]) -> Any:
    """The document with every value in it that looks sealed replaced by what `rewrap` makes of it."""
    if isinstance(document, Mapping):
        return {key: rewrap_fields(part, rewrap) for key, part in document.items()}
    if isinstance(document, list):
        return [rewrap_fields(part, rewrap) for part in document]
    return rewrap(document) if is_sealed(document) else document


def _make(path: Path) -> None:
    """Write a first key, unless another process is faster: one of the two files wins, whole."""
    draft = _draft(path, (MasterKey.made(),))
    try:
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    fsync_folder(path.parent)


def _draft(path: Path, keys: tuple[MasterKey, ...]) -> Path:
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write("".join(f"{key.line()}\n" for key in keys))
        file.flush()
        os.fsync(file.fileno())
    return draft


def _encrypt(key: bytes, data: bytes, context: str) -> str:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return base64.urlsafe_b64encode(nonce + AESGCM(key).encrypt(nonce, data, context.encode())).decode()


def _decrypt(key: bytes, encoded: str, context: str) -> bytes:
    data = base64.urlsafe_b64decode(encoded)
    return AESGCM(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], context.encode())
