"""Untrusted Python in a process of its own; `process` says what that stops and what it does not."""
