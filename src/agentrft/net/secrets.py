"""What a user writes to reach a service: its address, and headers whose values nobody may see.

Header values go into requests. Documents show a mask in their place, and what a service says is freed of them first.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, PlainSerializer, SecretStr, SerializationInfo

MASK = "**********"
"""What stands for a secret in everything that is written or shown."""

WITH_SECRETS = {"secrets": True}
"""As `context` of `model_dump`: secrets as they are, for a document that will be run again. Masked without it."""

_OURS = frozenset(
    {"accept-encoding", "connection", "content-length", "content-type", "expect", "host", "keep-alive", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
_HARMLESS = frozenset({"accept", "accept-language", "user-agent"})
_KEYS = re.compile(
    r"(?<![0-9A-Za-z])sk-[0-9A-Za-z_-]{20,}|whsec_[0-9A-Za-z+/=_-]{8,}|(?<=Bearer )\S+|(?<=://)[^\s/:@]*:[^\s/@]+(?=@)"
)
"""API keys, signing secrets, what else an `Authorization` header carries, and user and password of an address."""
_SHORTEST_IN_OUTPUT = 8
_SHORTEST = 4


def web_address(url: Any) -> Any:
    """The URL; raises ValueError without the URL in it: a password or a token may be part of it."""
    try:
        parts = urlsplit(url) if isinstance(url, str) and re.fullmatch(r"[\x21-\x7e]{1,2000}", url) else None
        is_good = parts and parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        parts, is_good = None, False
    if not parts or not is_good or parts.username is not None or parts.fragment:
        raise ValueError("expected an address such as https://host/path, without user name and password")
    return url


def secret_headers(headers: Any) -> Any:
    """The headers; raises ValueError with names only: whatever stands where a value belongs may be a secret."""
    if not isinstance(headers, Mapping):
        raise ValueError("expected an object from header names to values")
    for name, value in headers.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise ValueError("expected header names of letters, digits and '-'")
        if name.lower() in _OURS:
            raise ValueError(f"got the header {name!r}, which the request itself sets; leave it out")
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(text, str) or not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", text):
            raise ValueError(f"the value of {name!r} cannot be sent, expected one line of ASCII text")
        if text == MASK:
            raise ValueError(f"the value of {name!r} is masked, expected the value itself")
    return dict(headers)


def _masked_unless_asked_for(headers: dict[str, SecretStr], info: SerializationInfo) -> dict[str, str]:
    is_shown = bool(info.context and info.context.get("secrets"))
    return {name: value.get_secret_value() if is_shown else MASK for name, value in headers.items()}


SecretHeaders = Annotated[
    dict[str, SecretStr], BeforeValidator(secret_headers), PlainSerializer(_masked_unless_asked_for)
]
"""Header names and values of a document; dumped masked, or with `WITH_SECRETS` as they are."""

WebAddress = Annotated[str, BeforeValidator(web_address)]
"""An http or https URL of a document."""


def without_keys(text: str) -> str:
    """The text with a mask for whatever has the shape of a key."""
    return _KEYS.sub(MASK, text)


class Hider:
    """Takes header values out of texts, in the forms in which services give them back."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        found = {form for name, value in headers.items() if name.lower() not in _HARMLESS for form in _forms(value)}
        self._secrets = sorted(found, key=len, reverse=True)  # the longest first: one may be part of another

    def hide(self, text: str, *, shortest: int = _SHORTEST) -> str:
        """The text with a mask for every value of at least `shortest` characters."""
        for secret in self._secrets:
            if len(secret) >= shortest:
                text = text.replace(secret, MASK)
        return text

    def hide_in_output(self, text: str) -> str:
        """The same for what a service answers to its task, where a short value is more likely a word than a secret."""
        return self.hide(text, shortest=_SHORTEST_IN_OUTPUT)


def _forms(value: str) -> set[str]:
    """The value, its part behind `Bearer`, what `Basic` encodes, and each as JSON writes it."""
    forms = {value, value.rpartition(" ")[2]}
    kind, _, encoded = value.partition(" ")
    if kind.lower() == "basic":
        try:
            pair = base64.b64decode(encoded, validate=True).decode()
            forms |= {pair, pair.partition(":")[2]}
        except (binascii.Error, UnicodeDecodeError):
            """Not what `Basic` means: the value stands for itself."""
    return forms | {json.dumps(form)[1:-1] for form in forms}
