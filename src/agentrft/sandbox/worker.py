"""The warm interpreter behind `agentrft.sandbox.process`: imports once, then forks one child for every call.

Run as a script, standard library only. Speaks over the socket whose number is its first argument; frames are a 4-byte
big-endian length and the bytes. A request is a JSON header `{op, id, nonce, timeout_s, memory_bytes, imports}` and, for
`op: call`, a payload frame that only the child reads: this process never parses untrusted data. A response is a JSON
header `{id, fault, wall_s}`, the child's answer and what the child printed. When the socket closes, everything dies.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import linecache
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import time
import traceback
import types

MAX_ANSWER_BYTES = 64_000
MAX_OUTPUT_BYTES = 64_000
MAX_TRACEBACK_CHARS = 8_000
# Imported here once instead of in every child; anything else a grader imports is imported by its own child.
WARM = frozenset(
    {
        *("bisect", "collections", "copy", "dataclasses", "datetime", "decimal", "difflib", "enum", "fractions"),
        *("functools", "hashlib", "heapq", "itertools", "json", "math", "numbers", "numpy", "operator", "random"),
        *("rapidfuzz", "re", "statistics", "string", "textwrap", "typing", "unicodedata"),
    }
)
_LENGTH = struct.Struct(">I")
_PR_SET_PDEATHSIG = 1


class Child:
    """One running call."""

    def __init__(self, header, pid, answer_fd, output_fd):
        self.id = header["id"]
        self.nonce = header["nonce"].encode()
        self.timeout_s = header["timeout_s"]
        self.pid = pid
        self.answer_fd = answer_fd
        self.output_fd = output_fd
        self.answer = bytearray()
        self.output = bytearray()
        self.started = time.monotonic()

    @property
    def deadline(self):
        return self.started + self.timeout_s

    def body(self):
        """The answer once it is whole: None while it is not; raises ValueError when it is not one."""
        head = len(self.nonce) + _LENGTH.size
        if not self.nonce.startswith(bytes(self.answer[: len(self.nonce)])):
            raise ValueError("it wrote to a descriptor that is not its own")
        if len(self.answer) < head:
            return None
        (length,) = _LENGTH.unpack_from(self.answer, len(self.nonce))
        if length > MAX_ANSWER_BYTES:
            raise ValueError(f"its result is larger than {MAX_ANSWER_BYTES} bytes")
        if len(self.answer) > head + length:
            raise ValueError("it wrote to a descriptor that is not its own")
        return bytes(self.answer[head:]) if len(self.answer) == head + length else None


class Worker:
    def __init__(self, control):
        self.control = control
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ, None)
        self.children = {}
        self.die_with_parent = _die_with_parent()

    def run(self):
        while True:
            nearest = min((child.deadline for child in self.children.values()), default=None)
            wait_s = None if nearest is None else max(0.0, nearest - time.monotonic())
            for key, _ in self.selector.select(wait_s):
                if key.data is None:
                    if not self.take_request():
                        return
                elif key.data.id in self.children:
                    self.read(key.data, key.fd)
            now = time.monotonic()
            for child in [c for c in self.children.values() if c.deadline <= now]:
                self.finish(child, fault=f"it ran longer than {child.timeout_s:g} s and was stopped")

    def take_request(self):
        raw = receive(self.control)
        if raw is None:
            return False
        header = json.loads(raw)
        if header["op"] == "cancel":
            if header["id"] in self.children:
                self.finish(self.children[header["id"]], fault="it was cancelled")
            return True
        payload = receive(self.control)
        if payload is None:
            return False
        self.start(header, payload)
        return True

    def start(self, header, payload):
        self.warm_up(header["imports"])
        answer_read, answer_write = os.pipe()
        output_read, output_write = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            for fd in (answer_read, answer_write, output_read, output_write):
                os.close(fd)
            self.respond({"id": header["id"], "fault": f"cannot fork: {error}", "wall_s": 0.0}, b"", b"")
            return
        if pid == 0:
            try:
                confine(header, answer_write, output_write, self.die_with_parent)
                answer(header, payload)
            finally:
                os._exit(70)
        os.close(answer_write)
        os.close(output_write)
        child = Child(header, pid, answer_read, output_read)
        self.children[child.id] = child
        for fd in (answer_read, output_read):
            os.set_blocking(fd, False)
            self.selector.register(fd, selectors.EVENT_READ, child)

    def warm_up(self, imports):
        fresh = [name for name in imports if name in WARM and name not in sys.modules]
        for name in fresh:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
                if name == "rapidfuzz":
                    importlib.import_module("rapidfuzz.fuzz")
        if fresh:
            gc.collect()
            gc.freeze()

    def read(self, child, fd):
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return
        if fd == child.output_fd:
            if data:
                child.output += data[: MAX_OUTPUT_BYTES - len(child.output)]
            else:
                self.selector.unregister(fd)
            return
        child.answer += data
        try:
            body = child.body()
        except ValueError as error:
            self.finish(child, fault=str(error))
            return
        if body is not None:
            self.finish(child, body=body)
        elif not data:
            self.finish(child)

    def finish(self, child, body=b"", fault=None):
        """Kill what is left of a call and report it; without a body or a fault it died unasked."""
        del self.children[child.id]
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        if fault is None and not body:
            fault = _cause_of_death(os.waitpid(child.pid, 0)[1])
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
        with contextlib.suppress(BlockingIOError):
            while len(child.output) < MAX_OUTPUT_BYTES and (data := os.read(child.output_fd, 65536)):
                child.output += data[: MAX_OUTPUT_BYTES - len(child.output)]
        for fd in (child.answer_fd, child.output_fd):
            with contextlib.suppress(KeyError):
                self.selector.unregister(fd)
            os.close(fd)
        wall_s = time.monotonic() - child.started
        self.respond({"id": child.id, "fault": fault, "wall_s": wall_s}, body, bytes(child.output))

    def respond(self, header, body, output):
        for part in (json.dumps(header).encode(), body, output):
            self.control.sendall(_LENGTH.pack(len(part)) + part)

    def kill_all(self):
        for child in self.children.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)


def receive(control):
    """One frame, or None at the end of the stream."""
    head = _receive_exactly(control, _LENGTH.size)
    return None if head is None else _receive_exactly(control, _LENGTH.unpack(head)[0])


def _receive_exactly(control, count):
    data = bytearray()
    while len(data) < count:
        chunk = control.recv(min(count - len(data), 1 << 20))
        if not chunk:
            return None
        data += chunk
    return bytes(data)


def _cause_of_death(status):
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            return "it used more processor time than its limit"
        return f"its process died of {signal.Signals(number).name} (often the memory limit)"
    return f"its process left with status {os.WEXITSTATUS(status)} before answering"


def _die_with_parent():
    """A function that makes the calling process die with its parent, where the system can (Linux)."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


# ---------------------------------------------------------------------------------------------------------- the child


def confine(header, answer_fd, output_fd, die_with_parent):
    """Own session, own descriptors (0 empty, 1 and 2 captured, 3 the answer), resource limits."""
    os.setsid()
    die_with_parent()
    empty = os.open(os.devnull, os.O_RDONLY)
    # Upwards first: a plain dup2 chain could overwrite a descriptor that is still needed.
    high = [os.dup(fd) for fd in (answer_fd, output_fd, empty)]
    for source, target in ((high[2], 0), (high[1], 1), (high[1], 2), (high[0], 3)):
        os.dup2(source, target)
    os.closerange(4, 4096)
    cpu_s = int(header["timeout_s"]) + 2
    for limit, value in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, header["memory_bytes"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_FSIZE, 1_000_000),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS does not take every limit
            resource.setrlimit(limit, (value, value))


def answer(header, payload):
    try:
        found = call(json.loads(payload))
    except BaseException as error:
        found = {"error": _describe(error), "traceback": _trace(error)}
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    body = json.dumps(found).encode()
    if len(body) > MAX_ANSWER_BYTES:
        body = json.dumps({"error": f"the result is larger than {MAX_ANSWER_BYTES} bytes", "traceback": None}).encode()
    frame = header["nonce"].encode() + _LENGTH.pack(len(body)) + body
    while frame:
        frame = frame[os.write(3, frame) :]
    os._exit(0)


def call(request):
    """Run the source, call its function; the value as JSON if it has such a form, and its exact type."""
    name = request["filename"]
    module = types.ModuleType("__grader__")
    module.__file__ = name
    sys.modules["__grader__"] = module  # dataclasses, pydantic, pickle and get_type_hints look their module up
    namespace = module.__dict__
    source = request["source"]
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), namespace)
    value = namespace[request["function"]](*request["arguments"])
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    try:
        shown = json.loads(json.dumps(value))
    except Exception:
        shown = None
    return {"type": kind, "value": shown}


def _describe(error):
    try:
        text = str(error)
    except BaseException:
        text = "(its message cannot be shown)"
    return f"{type(error).__name__}: {text}"[:2000] if text else type(error).__name__


def _trace(error):
    try:
        tail = error.__traceback__.tb_next.tb_next if error.__traceback__ and error.__traceback__.tb_next else None
        text = "".join(traceback.format_exception(type(error), error, tail))
    except BaseException:
        return None
    return text if len(text) <= MAX_TRACEBACK_CHARS else "…" + text[-MAX_TRACEBACK_CHARS:]


def main():
    control = socket.socket(fileno=int(sys.argv[1]))
    # Children inherit what exists now; freezing spares them copies of pages that only the collector would touch.
    gc.collect()
    gc.freeze()
    worker = Worker(control)
    try:
        worker.run()
    finally:
        worker.kill_all()


if __name__ == "__main__":
    main()
