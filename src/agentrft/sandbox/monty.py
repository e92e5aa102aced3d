"""What a forked child does where code runs in Monty: it drives an interpreter that has no way to reach the machine.

Monty (`pydantic-monty`) is an interpreter of a part of Python. It runs in a process of its own with an empty
environment, which starts and ends with the child, under the child's limits. The code has no files, network, processes
or modules beyond Monty's own; it gets JSON and gives a value, which is decoded here, never in a process of ours that
lives on. What of Python Monty lacks is found by `gaps`.
"""

import ast
import contextlib
import json

from pydantic_monty import Monty, MontyClassProxy, MontyCrashedError, MontyError, ResourceLimits

from agentrft.sandbox.child import MAX_ERROR_CHARS, MAX_TRACEBACK_CHARS, describe, described
from agentrft.sandbox.gaps import needs_of

MAX_GAPS = 20
_ARGUMENTS = "__arguments"
_MEMORY_FRAC = 0.7  # of the child's own limit, so that Monty notices first and says so
_MAX_CALLS_OUT = 1_000_000  # of the clock and sleep: the child's time is the limit
_SPOILT = {"error": "a call before it failed in the same interpreter", "traceback": None}
_FORBIDDEN = {
    "reads a file": "open('/etc/passwd').read()",
    "lists a folder": "import os\nos.listdir('/')",
    "writes a file": "open('/tmp/agentrft', 'w').write('x')",
    "reads the environment": "import os\ndict(os.environ)",
    "opens a socket": "import socket",
    "runs a program": "import subprocess",
    "calls C": "import ctypes",
}


def results(header, payload, run_code):
    """One result for each call; after a failure the interpreter is not used again. `run_code` is not offered here."""
    request = json.loads(payload)
    source, filename = _without_future(request["source"]), request["filename"]
    with _interpreter(header["memory_bytes"]) as session:
        if request["calls"] is None:
            yield described(_gaps(session, source, filename))
            return
        found = _run(session, filename, f"{source}\nNone")
        has_loaded = "error" not in found
        for name, arguments in request["calls"]:
            if "error" not in found:
                found = _run(session, filename, f"{name}(*{_ARGUMENTS})", {_ARGUMENTS: arguments})
                yield found
            else:
                yield _SPOILT if has_loaded else found


def holes():
    """Forbidden things that Monty let its code do; empty when it holds."""
    found = []
    with _interpreter(100_000_000) as session:
        for name, code in _FORBIDDEN.items():
            with contextlib.suppress(MontyError):
                session.feed_run(f"{code}\nNone")
                found.append(f"monty: {name}")
    return found


@contextlib.contextmanager
def _interpreter(memory_bytes):
    limits: ResourceLimits = {"max_memory": int(memory_bytes * _MEMORY_FRAC), "max_suspensions": _MAX_CALLS_OUT}
    with (
        Monty(min_processes=1, max_processes=1) as pool,
        pool.checkout(
            limits=limits, assert_message_annotations=False, os_policy={"sleep_system_max": float("inf")}
        ) as session,
    ):
        yield session


def _run(session, filename, code, inputs=None):
    """The result of a piece of code, of which the first is the source."""
    try:
        value = session.feed_run(code, inputs=inputs)
    except MontyError as error:
        return {"error": _describe(error), "traceback": _trace(error, filename)}
    except (MemoryError, RecursionError) as error:  # in taking the value over
        return {"error": f"{type(error).__name__}: the result cannot be taken over", "traceback": None}
    if isinstance(value, MontyClassProxy):
        return {"type": f"__grader__.{value.name}", "value": None}
    return described(value)


def _describe(error):
    if isinstance(error, MontyCrashedError):
        return "its interpreter died (often the memory limit)"
    if isinstance(error.exception(), KeyError):  # whose key Monty shows without quotation marks
        return describe(error.exception())
    text = error.display("type-msg") if hasattr(error, "display") else str(error)
    return text[:MAX_ERROR_CHARS]


def _trace(error, filename):
    """As Python writes it, for the source's own lines: the first piece of code is the source, the others are ours."""
    if not hasattr(error, "traceback"):
        return None
    frames = [frame for frame in _frames(error) if frame.filename in ("<python-input-0>", "<string>")]
    lines = ["Traceback (most recent call last):\n"]
    for frame in frames:
        name = filename if frame.filename == "<python-input-0>" else frame.filename
        lines.append(f'  File "{name}", line {frame.line}, in {frame.function_name or "<module>"}\n')
        lines.append(f"    {(frame.source_line or '').strip()}\n")
    text = "".join(lines) + _describe(error) + "\n"
    return text if len(text) <= MAX_TRACEBACK_CHARS else "…" + text[-MAX_TRACEBACK_CHARS:]


def _gaps(session, source, filename):
    """What the source needs and Monty lacks, for people; empty when it can be run."""
    lacking = [need for need in needs_of(ast.parse(source)) if _lacks(session, need)]
    absent = {need.name for need in lacking}
    found = [f"{need.name} (line {need.line})" for need in lacking if f"module {need.module}" not in absent]
    if not found:
        try:
            session.feed_run(f"{source}\nNone")
        except MontyError as error:
            line = next((f" (line {frame.line})" for frame in reversed(_frames(error))), "")
            found.append(_describe(error) + line)
    return found[:MAX_GAPS]


def _lacks(session, need):
    return not any(_knows(session, code) for code in need.tries)


def _knows(session, code):
    try:
        session.feed_run(f"{code}\nNone")
    except MontyError as error:
        return not isinstance(error.exception(), ImportError | NameError | AttributeError | NotImplementedError)
    return True


def _frames(error):
    return error.traceback() if hasattr(error, "traceback") else []


def _without_future(source):
    """The source without `from __future__ import …`, which Monty neither knows nor needs; lines keep their numbers."""
    lines = source.encode().splitlines(keepends=True)
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
            rest = lines[last][node.end_col_offset :]
            lines[first : last + 1] = [b"pass\n"] * (last - first) + [b"pass" + rest]
    return b"".join(lines).decode()
