"""`agentrft serve`: OpenAI's fine-tuning API on this machine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agentrft.cli.console import err, note, out

if TYPE_CHECKING:
    from agentrft.server.config import ServerConfig


def serve(
    host: str = typer.Option("127.0.0.1", help="Address to listen on; others than loopback need API keys."),
    port: int = typer.Option(8000, min=0, max=65535, help="0 for any free one."),
    config: Path | None = typer.Option(None, help="Options of the server (docs/server.md).", metavar="FILE"),
    concurrency: int | None = typer.Option(None, min=0, help="Jobs at once, instead of the file's; 0 runs none."),
) -> None:
    """Serve OpenAI's fine-tuning API; Ctrl-C stops it, and jobs go on where they were when it is started again."""
    _require_server()
    from agentrft.server.logs import log_to_stderr
    from agentrft.server.run import MAKE_KEY, listen
    from agentrft.server.run import serve as serve_on
    from agentrft.server.state import open_state

    options = _options(config, concurrency)
    state = open_state(options, listens_on=host)
    # Where the file names another store, a key that is made without it opens nothing here.
    where = f" --config {shlex.quote(str(config))}" if options.store else ""
    try:
        sock = listen(host, port, state.keys, make_key=MAKE_KEY + where)
        log_to_stderr()
        has_keys = state.keys.exist()
        with sock:
            serve_on(state, sock, lambda url: _tell(url, has_keys=has_keys, where=where))
    finally:
        state.close()


def _require_server() -> None:
    """Raises UserError where the packages of the server are missing."""
    import importlib.util

    from agentrft.errors import UserError

    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        message = f"the server needs {' and '.join(missing)}; run: pip install 'agentrft[server]'"
        raise UserError(message, code="missing_extra")


def _options(path: Path | None, concurrency: int | None) -> ServerConfig:
    from agentrft.server.config import load_config

    options = load_config(path)
    return options if concurrency is None else options.model_copy(update={"concurrency": concurrency})


def _tell(url: str, *, has_keys: bool, where: str) -> None:
    """How to begin; `where` are the options by which `agentrft keys` finds this server's store."""
    out().print(f"agentrft listens on {url}", soft_wrap=True)
    key = "sk-…" if has_keys else "local"
    out().print(f'  client = OpenAI(base_url="{url}/v1", api_key="{key}")', soft_wrap=True, markup=False)
    if has_keys:
        note(f"`agentrft keys list{where}` shows which keys there are, `agentrft keys create{where}` makes another")
    else:
        note("no API keys yet: this machine only is served, and any key will do.")
        note(f"`agentrft keys create --project NAME{where}` makes one; from then on a key is needed.")
    err().file.flush()
    out().file.flush()
