"""Numbers and stop reasons in words, once for the terminal and the page."""

from __future__ import annotations

from agentrft.stats import Interval

STAGE_COLOURS = {"base": "#8b8f98", "sft": "#b7791f", "rft": "#0f766e"}

_STOP_WORDS = {
    "answered": "answered",
    "max_turns": "ran out of turns",
    "max_reply_tokens": "reply cut at the token limit",
    "max_episode_tokens": "episode over the token limit",
    "max_time": "out of time",
    "guardrail": "ended by a guardrail",
    "malformed": "unreadable calls",
    "fault": "tool or grader fault",
}


def stop_words(reason: str) -> str:
    """A stop reason for people."""
    return _STOP_WORDS.get(reason, reason.replace("_", " "))


def bounds(interval: Interval, *, digits: int = 2) -> str:
    """`[0.42, 0.56]`, with real minus and infinity signs."""
    return f"[{number(interval.low, digits)}, {number(interval.high, digits)}]"


def gain(interval: Interval, *, digits: int = 2) -> str:
    """`+0.49 [+0.42, +0.56]`: a difference, so every number carries its sign."""
    mean, low, high = (number(value, digits, sign="+") for value in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def number(value: float, digits: int = 2, *, sign: str = "") -> str:
    """A figure for people; `sign="+"` shows the sign of positive numbers too."""
    return f"{value:{sign}.{digits}f}".replace("-", "−").replace("inf", "∞")


def duration(seconds: float) -> str:
    """`48 s`, `4 min 12 s`, `1 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
