"""The command line: `agentrft …`. One file per command group; `docs/cli.md` has every command with its options."""

from agentrft.cli.app import main

__all__ = ["main"]
