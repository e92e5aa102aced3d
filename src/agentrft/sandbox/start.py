"""A worker's start, its clean environment, and what it says of itself: what confines it on this machine.

`AGENTRFT_GRADER_PYTHON` names another interpreter for the worker, so that graders have an environment of their own with
packages that agentrft does not need, or must not share. Monty's worker is ours.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

from agentrft.sandbox.layers import Isolation, Report, read_report

LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 65_536
"""An answer or printed text of 64,000 bytes, or a header."""
START_S = 30.0
INTERPRETER = "AGENTRFT_GRADER_PYTHON"

_PACKAGE = Path(__file__).parents[2]
_START = "import sys; sys.path.insert(0, sys.argv[1]); from agentrft.sandbox.worker import main; "
_RUN = _START + "sys.path.remove(sys.argv[1]); main(int(sys.argv[2]), sys.argv[3])"


@functools.cache
def measured(isolation: Isolation) -> Report:
    """What confines a worker of this kind on this machine; starts one and ends it, 0.2 s, once in a process's life."""
    if (why := refusal(isolation)) is not None:
        return Report(isolation=isolation, missing={isolation: why})
    process, ours = start_process(isolation)
    try:
        ours.settimeout(START_S)
        frame = _receive(ours, LENGTH.unpack(_receive(ours, LENGTH.size))[0])
        return read_report(frame)
    except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError):
        python = own_interpreter()
        why = f"the sandbox's worker did not start{f' with {python}' if python else ''}"
        return Report(isolation=isolation, missing={isolation: why})
    finally:
        ours.close()
        process.kill()
        process.wait()


def refusal(isolation: Isolation) -> str | None:
    """Why such a worker need not be started here; None where it is worth trying."""
    if isolation != "monty" and own_interpreter() and shutil.which(own_interpreter()) is None:
        return f"{INTERPRETER} names {own_interpreter()!r}, which is no program; expected the python of an environment"
    if isolation == "jail":
        return platform_refusal()
    if not hasattr(os, "fork"):
        return f"it needs fork, which {platform.system()} does not have"
    if isolation == "monty" and importlib.util.find_spec("pydantic_monty") is None:
        return "Monty is not installed: pip install 'agentrft[monty]'"
    return None


def own_interpreter() -> str:
    """The Python that graders get instead of ours; empty when they get ours."""
    return os.environ.get(INTERPRETER, "")


def platform_refusal() -> str | None:
    """Why there can be no jail on this operating system; None on Linux."""
    return None if sys.platform == "linux" else f"it needs Linux, this is {platform.system()}"


def start_process(isolation: Isolation) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A worker, and our end of its socket, which is non-blocking; its first frame is its report."""
    python = (isolation != "monty" and own_interpreter()) or sys.executable
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [python, "-s", "-P", "-c", _RUN, str(_PACKAGE), str(theirs.fileno()), isolation],
            pass_fds=[theirs.fileno()],
            env=_clean_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    ours.setblocking(False)
    return process, ours


def _receive(ours: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < min(count, MAX_FRAME_BYTES):
        chunk = ours.recv(count - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data


def _clean_environment() -> dict[str, str]:
    """Nothing of ours: no keys, no PYTHONPATH.

    One thread for BLAS, because children share the cores; a fixed hash seed, because graders that walk over sets should
    give the same grade after a restart (which is why the worker runs with `-s -P` instead of `-I`, that ignores it).
    """
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", **one_thread}
