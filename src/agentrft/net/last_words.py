"""What a process of ours wrote last, as others may read it: without the secrets that it was given."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from agentrft.net.secrets import Hider, without_keys

_SECRET_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)S?$", re.IGNORECASE)


def end_of(data: bytes, *, is_cut: bool) -> str:
    """The text of a log's end. A word whose beginning is cut off is left out: it may be the rest of a secret."""
    text = data.decode("utf-8", "replace")
    return (re.sub(r"^\S+", "", text) if is_cut else text).strip()


def without_secrets(text: str, secrets: Mapping[str, str]) -> str:
    """The text with a mask for the values of `secrets`, for keys of this process's environment, which those that it
    starts inherit, and for what has the shape of a key."""
    inherited = {name: value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name)}
    return without_keys(Hider(inherited).hide_in_output(Hider(secrets).hide(text)))
