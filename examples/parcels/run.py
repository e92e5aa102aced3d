"""Start the tool server, climb the ladder on parcels, stop the server: `python examples/parcels/run.py [OPTIONS]`.

OPTIONS are those of `agentrft climb --only-train` (`--seed 1 --split test --split harder --json FILE …`); the exit code
is its own, or 1 when the server does not start. Killed with SIGKILL, it leaves the server running: stop that yourself.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml

JOB = Path(__file__).parent / "job.yaml"
SERVER = Path(__file__).parent / "server.py"
AGENTRFT = Path(sysconfig.get_path("scripts")) / "agentrft"
STOP_S = 5.0


@contextmanager
def server() -> Iterator[None]:
    """The tool server, listening; stopped afterwards whatever happens. It says itself why it does not start."""
    tools = yaml.safe_load(JOB.read_text(encoding="utf-8"))["agent"]["tools"]
    command = [sys.executable, SERVER, "--port", str(urlsplit(tools[0]["server_url"]).port)]
    # A session of its own: Ctrl-C is for the climb, which still needs its tools to end well.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        if not process.stdout.readline():
            sys.exit(1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def climb(options: Sequence[str]) -> int:
    """Climb with `agentrft climb --only-train`; its exit code, 128 + n where the signal n ended it."""
    climbing = subprocess.Popen([AGENTRFT, "climb", JOB, "--only-train", *options])
    # Ctrl-C: the terminal sends it to the climb as well, which stops in its own time.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: climbing.terminate())
    code = climbing.wait()
    return code if code >= 0 else 128 - code


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that `finally` runs
    with server():
        code = climb(sys.argv[1:])
    sys.exit(code)


if __name__ == "__main__":
    main()
