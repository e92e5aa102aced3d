"""What a forked child does: wait for its request, shut itself in, run the source, call the function, answer.

Standard library only. An answer is a frame: the call's nonce, one letter, two 4-byte numbers (length, milliseconds) and
the bytes. `a` is the JSON of one grade; `r` asks the worker for a second child that runs other code (see `run_code`).
The frames of a child are data to the worker; the nonce only stops code that writes to every descriptor it finds.
"""

import contextlib
import ctypes
import json
import linecache
import os
import signal
import struct
import sys
import traceback
import types
from typing import NoReturn

from agentrft.sandbox.limits import limit_this_process
from agentrft.sandbox.run_code import Runner, exactly

MAX_ANSWER_BYTES = 64_000
MAX_ERROR_CHARS = 2_000
MAX_TRACEBACK_CHARS = 8_000
HEAD = struct.Struct(">cII")
LENGTH = struct.Struct(">I")
_CHANNEL, _FIRST_FOREIGN = 3, 4
_PR_SET_PDEATHSIG = 1
_LEAVING = 70
# Bound now: code that patches `json` or `os` in its child must not thereby write its own answer.
_encode, _decode, _write = json.JSONEncoder().encode, json.JSONDecoder().decode, os.write


def die_with_parent():
    """A function that makes the calling process die with its parent, where the system can (Linux)."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class World:
    """What every child of a worker shares: how it dies with the worker, its empty input, its system-call filter."""

    def __init__(self, system_calls, results):
        self.die_with_parent = die_with_parent()
        self.empty = os.open(os.devnull, os.O_RDONLY)
        self.system_calls = system_calls
        """A `seccomp.Filter`, or None in a plain process."""
        self.results = results
        """How the calls of a request are answered, one result after another."""

    def settle(self, channel, output):
        """Own session, own descriptors: 0 empty, 1 and 2 captured, 3 the channel."""
        os.setsid()
        self.die_with_parent()
        # Upwards first: a plain dup2 chain could overwrite a descriptor that is still needed.
        high = [os.dup(fd) for fd in (channel, output, self.empty)]
        for source, target in ((high[2], 0), (high[1], 1), (high[1], 2), (high[0], _CHANNEL)):
            os.dup2(source, target)
        os.closerange(_FIRST_FOREIGN, 65536)

    def confine(self, header):
        """Limits, and last the filter, which lets nobody change them."""
        cpu_s = int(header["timeout_s"] * header["n_calls"]) + 2
        limit_this_process(cpu_s=cpu_s, memory_bytes=header["memory_bytes"])
        if self.system_calls is not None:
            self.system_calls.switch_on()


def serve(world):
    """Take the request, answer every call of it, one frame each, and leave."""
    header = json.loads(_frame())
    payload = _frame()
    world.confine(header)
    nonce = header["nonce"].encode()

    def send(kind, body, milliseconds=0):
        frame = nonce + HEAD.pack(kind, len(body), milliseconds) + body
        while frame:
            frame = frame[_write(_CHANNEL, frame) :]

    for found in world.results(header, payload, Runner(send, _CHANNEL)):
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        body = _encode(found).encode()
        if len(body) > MAX_ANSWER_BYTES:
            what = f"the result is larger than {MAX_ANSWER_BYTES} bytes"
            body = _encode({"error": what, "traceback": None}).encode()
        send(b"a", body)
    os._exit(0)


def _frame():
    """The next frame from the worker; leaves when there is none, as the worker is gone."""
    try:
        (length,) = LENGTH.unpack(exactly(_CHANNEL, LENGTH.size))
        return exactly(_CHANNEL, length)
    except EOFError:
        leave()


def python_results(header, payload, run_code):
    """One result for each call; the source is run once, and its failure is the result of every call."""
    try:
        request = json.loads(payload)
        namespace = load(request, run_code)
    except BaseException as error:
        for _ in range(header["n_calls"]):
            yield {"error": describe(error), "traceback": _trace(error)}
        return
    for name, arguments in request["calls"]:
        try:
            found = call(namespace, name, arguments)
        except BaseException as error:
            found = {"error": describe(error), "traceback": _trace(error)}
        yield found


def load(request, run_code):
    """The namespace that the source leaves behind."""
    name = request["filename"]
    module = types.ModuleType("__grader__")
    module.__file__ = name
    module.__dict__["run_code"] = run_code
    sys.modules["__grader__"] = module  # dataclasses, pydantic, pickle and get_type_hints look their module up
    source = request["source"]
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), module.__dict__)
    return module.__dict__


def call(namespace, name, arguments):
    """What the function gives."""
    return described(namespace[name](*arguments))


def described(value):
    """A result: the value as JSON if it has such a form, and its exact type."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    try:
        shown = _decode(_encode(value))
    except Exception:
        shown = None
    return {"type": kind, "value": shown}


def leave() -> NoReturn:
    """The end of a child that never got to an answer."""
    os._exit(_LEAVING)


def describe(error):
    try:
        text = str(error)
    except BaseException:
        text = "(its message cannot be shown)"
    return f"{type(error).__name__}: {text}"[:MAX_ERROR_CHARS] if text else type(error).__name__


def _trace(error):
    try:
        tail = error.__traceback__.tb_next.tb_next if error.__traceback__ and error.__traceback__.tb_next else None
        text = "".join(traceback.format_exception(type(error), error, tail))
    except BaseException:
        return None
    return text if len(text) <= MAX_TRACEBACK_CHARS else "…" + text[-MAX_TRACEBACK_CHARS:]
