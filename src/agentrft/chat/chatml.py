"""ChatML framing, shared by the line and Hermes formats: `<|im_start|>role\\n…<|im_end|>\\n`."""

from __future__ import annotations

from agentrft.chat.tokens import Mark, Piece

START = "<|im_start|>"
END = "<|im_end|>"


def block(role: str, content: str) -> list[Piece]:
    """One whole message."""
    return [Mark(START), f"{role}\n{content}", Mark(END), "\n"]


def opening() -> list[Piece]:
    """What a reply is generated after."""
    return [Mark(START), "assistant\n"]
