"""The words with which engines and providers say that a prompt is too long."""

from __future__ import annotations

import re

_OVERFLOW = re.compile(
    r"context.?(length|window|size).{0,40}(exceed|too|larg|limit|long)|maximum context|context_(length|window)"
    r"|(prompt|input|request|messages?)\s+(is|are)\s+too\s+(long|large)|too\s+many\s+(input\s+)?tokens"
    r"|exceeds?\s+the\s+(model|maximum|context)|reduce\s+the\s+length\s+of",
    re.IGNORECASE,
)


def is_overflow(text: str) -> bool:
    """Whether a fault, of the engine, says that the conversation no longer fits the model."""
    return text.startswith("engine") and bool(_OVERFLOW.search(text))
