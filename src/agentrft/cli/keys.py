"""`agentrft keys …`: API keys of the server, and the master key that seals secrets."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.table import Table

from agentrft.cli.console import note, out, safe, warn
from agentrft.errors import UserError

if TYPE_CHECKING:
    from agentrft.store import SqlStore
    from agentrft.store.keys import Key

app = typer.Typer(help="API keys of the server: create, list, revoke.", no_args_is_help=True)

CONFIG = typer.Option(None, "--config", help="The server's options, where they name another store.", metavar="FILE")

_SECONDS = {"m": 60, "h": 3600, "d": 24 * 3600}


@app.command("create")
def create(
    project: str = typer.Option("proj_local", help="Whose jobs and files the key reaches.", metavar="NAME"),
    scope: list[str] = typer.Option(
        ["admin"], help="What it may do, e.g. jobs:read; may be given several times. `admin` is everything."
    ),
    expires: str | None = typer.Option(None, help="After how long it ends: 90d, 12h, 30m. Never by default."),
    name: str = typer.Option("", help="What it is for."),
    config: Path | None = CONFIG,
) -> None:
    """Make a key and print it, once; only its hash is kept."""
    from agentrft.store.keys import Keys

    lives_s = None if expires is None else _seconds(expires)
    store = _store(config)
    try:
        now = store.database.clock.now()
        expires_at = None if lives_s is None else now + lives_s
        key, text = Keys(store.database).create(project, scope, name=name, expires_at=expires_at)
    finally:
        store.close()
    note(f"key {key.id} of project {key.project}, {', '.join(key.scopes)}. Keep it now: nothing can show it again.")
    out().print(text, soft_wrap=True)


@app.command("list")
def list_keys(config: Path | None = CONFIG) -> None:
    """Show every key: project, scopes, last use, end."""
    from agentrft.store.keys import Keys

    store = _store(config)
    try:
        keys = Keys(store.database).list()
        now = store.database.clock.now()
    finally:
        store.close()
    if not keys:
        out().print("no keys yet; `agentrft keys create` makes one")
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in ("id", "project", "name", "scopes", "created", "last used", "state"):
        table.add_column(title, overflow="fold")
    for key in keys:
        days = _day(key.created_at), _day(key.last_used_at) or "never"
        table.add_row(key.id, key.project, safe(key.name), ", ".join(key.scopes), *days, _state(key, now))
    out().print(table)


@app.command("revoke")
def revoke(
    key: str = typer.Argument(help="The key's id, as `agentrft keys list` shows it.", metavar="ID"),
    config: Path | None = CONFIG,
) -> None:
    """End a key, for good; its next request is refused."""
    from agentrft.store.keys import Keys

    store = _store(config)
    try:
        revoked = Keys(store.database).revoke(key)
    finally:
        store.close()
    out().print(f"key {revoked.id} of project {revoked.project} is revoked")


@app.command("rotate-master")
def rotate_master(config: Path | None = CONFIG) -> None:
    """Seal every stored secret under a new master key, and forget the old one."""
    from agentrft.jobs.rotation import rotate

    store = _store(config)
    try:
        done = rotate(store.database)
    finally:
        store.close()
    out().print(f"master key {done.key_id}: {done.n_values} secrets were sealed anew")
    if done.n_unreadable:
        warn(f"{done.n_unreadable} values are opened by none of the keys; the old keys are kept until they are gone")


def _store(config: Path | None) -> SqlStore:
    """The store that the server uses."""
    from agentrft.store import open_store

    if config is None:
        return open_store()
    from agentrft.server.config import load_config

    return open_store(load_config(config).store)


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhd])", text)
    if not found:
        raise UserError(f"--expires is {text!r}, expected a number and m, h or d, for example 90d", param="expires")
    return int(found[1]) * _SECONDS[found[2]]


def _day(seconds: float | None) -> str:
    return "" if seconds is None else datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def _state(key: Key, now: float) -> str:
    if key.revoked_at is not None:
        return f"revoked {_day(key.revoked_at)}"
    if key.expires_at is None:
        return "good"
    return f"expired {_day(key.expires_at)}" if key.expires_at <= now else f"good until {_day(key.expires_at)}"
