"""The warm interpreter behind `agentrft.sandbox.process`: imports once, then forks one child for every request.

Forking takes as long as a small grade. So the child of the next request is forked while the one of this request works;
it waits, and serves one request like any other.

Standard library only. Speaks over the socket whose number it is given; frames are a 4-byte big-endian length and the
bytes. First it says what confines it (`layers.Report`). A request is a JSON header `{op, id, nonce, n_calls, timeout_s,
memory_bytes, imports}` and, for `op: call`, a payload frame that only the child reads: this process never parses
untrusted data, and wipes the payload once the child has it, before it forks another. A response is a JSON header `{id,
fault, wall_s}` (one `wall_s` for each answer), what the child printed, and the child's answers. When the socket closes,
everything dies.
"""

import contextlib
import dataclasses
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time

from agentrft.sandbox import child as inside
from agentrft.sandbox.jail import enter
from agentrft.sandbox.layers import Report
from agentrft.sandbox.probe import examine, tried

MAX_OUTPUT_BYTES = 64_000
MAX_REQUEST_BYTES = 1_100_000  # of one `run_code`
# Imported here once instead of in every child; anything else a grader imports is imported by its own child.
WARM = frozenset(
    {
        *("array", "ast", "base64", "bisect", "collections", "copy", "csv", "dataclasses", "datetime", "decimal"),
        *("difflib", "enum", "fractions", "functools", "hashlib", "heapq", "itertools", "json", "math", "numbers"),
        *("operator", "random", "re", "statistics", "string", "struct", "textwrap", "typing", "unicodedata", "zlib"),
        *("deepdiff", "jsonschema", "nltk", "numpy", "pandas", "pydantic", "rapidfuzz", "rouge_score", "scipy"),
        *("sklearn", "sqlparse", "sympy", "yaml"),
    }
)
_SUBMODULES = {"rapidfuzz": ("rapidfuzz.fuzz", "rapidfuzz.distance"), "scipy": ("scipy.stats", "scipy.spatial")}
_REPLY = struct.Struct(">cI")
_TOO_LONG = "it ran longer than {:g} s and was stopped"


class Child:
    """A forked process: it waits, then runs one request, or what a request asked a second child to run."""

    def __init__(self, pid, channel, output_fd):
        self.pid = pid
        self.channel = channel
        self.output_fd = output_fd
        self.inner = None
        self.received = bytearray()
        self.pending = bytearray()
        self.answers = []
        self.wall_s = []
        self.output = bytearray()

    def take(self, header, payload, outer):
        """Hand it the request, which only code of ours has a part in as yet; the caller's payload is wiped."""
        self.id = header["id"]
        self.nonce = header["nonce"].encode()
        self.n_calls = header["n_calls"]
        self.timeout_s = header["timeout_s"]
        self.memory_bytes = header["memory_bytes"]
        self.outer = outer
        self.started = time.monotonic()
        with contextlib.suppress(OSError):  # it has gone; reading will show how
            for frame in (json.dumps(header).encode(), payload):
                _write_all(self.channel, inside.LENGTH.pack(len(frame)))
                _write_all(self.channel, frame)
        payload[:] = bytes(len(payload))  # later children are copies of this process
        os.set_blocking(self.channel, False)

    @property
    def deadline(self):
        return self.started + self.timeout_s

    def next_frame(self):
        """(letter, milliseconds, body) once a frame is whole: None while it is not; ValueError when it is not one."""
        n_nonce, n_head = len(self.nonce), len(self.nonce) + inside.HEAD.size
        is_unasked = self.received and (self.inner is not None or len(self.answers) == self.n_calls)
        if is_unasked or not self.nonce.startswith(bytes(self.received[:n_nonce])):
            raise ValueError("it wrote to a descriptor that is not its own")
        if len(self.received) < n_head:
            return None
        kind, length, milliseconds = inside.HEAD.unpack_from(self.received, n_nonce)
        limit = {b"a": inside.MAX_ANSWER_BYTES, b"r": MAX_REQUEST_BYTES}.get(kind, -1)
        if limit < 0:
            raise ValueError("it wrote to a descriptor that is not its own")
        if length > limit:
            raise ValueError(f"its result is larger than {limit} bytes")
        if len(self.received) < n_head + length:
            return None
        body = bytes(self.received[n_head : n_head + length])
        del self.received[: n_head + length]
        return kind, milliseconds, body


class Worker:
    def __init__(self, control, world):
        self.control = control
        self.world = world
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ, None)
        self.children = set()
        self.spare = None

    def run(self):
        while True:
            if self.children and self.spare is None:
                with contextlib.suppress(OSError):  # the next request will say what is wrong
                    self.spare = self.fork()
            nearest = min((child.deadline for child in self.children), default=None)
            wait_s = None if nearest is None else max(0.0, nearest - time.monotonic())
            for key, mask in self.selector.select(wait_s):
                if key.data is None:
                    if not self.take_request():
                        return
                    continue
                if mask & selectors.EVENT_WRITE and key.data in self.children:
                    self.write(key.data)
                if mask & selectors.EVENT_READ and key.data in self.children:
                    self.read(key.data, key.fd)
            now = time.monotonic()
            for child in [c for c in self.children if c.deadline <= now]:
                if child in self.children:
                    self.finish(child, fault=_TOO_LONG.format(child.timeout_s))

    def take_request(self):
        raw = receive(self.control)
        if raw is None:
            return False
        header = json.loads(raw)
        if header["op"] == "cancel":
            for child in [c for c in self.children if c.outer is None and c.id == header["id"]]:
                self.finish(child, fault="it was cancelled")
            return True
        payload = receive(self.control)
        if payload is None:
            return False
        self.warm_up(header["imports"])
        try:
            self.start(header, payload)
        except OSError as error:
            self.respond({"id": header["id"], "fault": f"cannot fork: {error}", "wall_s": []}, b"", [])
        return True

    def start(self, header, payload, outer=None):
        """Give the request to a fresh child; raises OSError where none can be forked."""
        child, self.spare = self.spare, None
        if child is not None and os.waitpid(child.pid, os.WNOHANG)[0]:  # killed while it waited
            self.close(child)
            child = None
        child = child or self.fork()
        child.take(header, payload, outer)
        self.children.add(child)
        for fd in (child.channel, child.output_fd):
            self.selector.register(fd, selectors.EVENT_READ, child)
        return child

    def fork(self):
        """A child that waits for its request; raises OSError."""
        ours, theirs = socket.socketpair()
        output_read, output_write = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            for fd in (ours.detach(), theirs.detach(), output_read, output_write):
                os.close(fd)
            raise
        if pid == 0:
            try:
                self.world.settle(theirs.fileno(), output_write)
                inside.serve(self.world)
            finally:
                inside.leave()
        theirs.close()
        os.close(output_write)
        os.set_blocking(output_read, False)
        return Child(pid, ours.detach(), output_read)

    def drop_spare(self):
        if self.spare is not None:
            self.reap(self.spare)
            self.close(self.spare)
            self.spare = None

    def warm_up(self, imports):
        fresh = [name for name in imports if name in WARM and name not in sys.modules]
        for name in fresh:
            with contextlib.suppress(ImportError):
                for module in (name, *_SUBMODULES.get(name, ())):
                    importlib.import_module(module)
        if fresh:
            self.drop_spare()  # it lacks them
            gc.collect()
            gc.freeze()

    def read(self, child, fd):
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return
        except ConnectionResetError:  # it died without reading all that was written to it
            data = b""
        if fd == child.output_fd:
            if data:
                child.output += data[: MAX_OUTPUT_BYTES - len(child.output)]
            else:
                self.selector.unregister(fd)
            return
        child.received += data
        try:
            while (frame := child.next_frame()) is not None:
                self.take_frame(child, *frame)
            if len(child.answers) == child.n_calls:
                self.finish(child)
            elif not data:
                self.finish(child, has_died=True)
        except ValueError as error:
            self.finish(child, fault=str(error))

    def take_frame(self, child, kind, milliseconds, body):
        if kind == b"a":
            now = time.monotonic()
            child.wall_s.append(now - child.started)
            child.answers.append(body)
            child.started = now  # each call of a group has the whole time
            if child.outer is not None and sum(map(len, child.answers)) > MAX_REQUEST_BYTES:
                raise ValueError(f"its results are larger than {MAX_REQUEST_BYTES} bytes")
            return
        if child.outer is not None:
            raise ValueError("code run by `run_code` cannot use it itself")
        n_calls = int.from_bytes(body[: inside.LENGTH.size], "big") if len(body) >= inside.LENGTH.size else 0
        timeout_s = min(milliseconds / 1000, max(0.0, child.deadline - time.monotonic()))
        if not 1 <= n_calls <= 10_000:
            raise ValueError("it wrote to a descriptor that is not its own")
        header = {"id": child.id, "nonce": os.urandom(8).hex(), "n_calls": n_calls, "timeout_s": timeout_s}
        try:
            child.inner = self.start(
                {**header, "memory_bytes": child.memory_bytes}, bytearray(body[inside.LENGTH.size :]), outer=child
            )
        except OSError as error:
            raise ValueError(f"cannot fork: {error}") from None

    def finish(self, child, fault=None, has_died=False):
        """Kill what is left of a request and report it."""
        self.children.discard(child)
        if fault is not None and len(child.answers) == child.n_calls:
            child.answers, child.wall_s = [], []  # it answered and went on writing: none of it counts
        if child.inner is not None:
            self.finish(child.inner, fault="its caller ended")
        if fault is not None:
            self.reap(child)
        elif has_died:
            fault = _cause_of_death(self.reap(child, is_dead=True))
        with contextlib.suppress(BlockingIOError):
            while len(child.output) < MAX_OUTPUT_BYTES and (data := os.read(child.output_fd, 65536)):
                child.output += data[: MAX_OUTPUT_BYTES - len(child.output)]
        if child.outer is None:
            header = {"id": child.id, "fault": fault, "wall_s": child.wall_s}
            self.respond(header, bytes(child.output), child.answers)
        elif child.outer in self.children:
            self.hand_back(child, fault)
        if fault is None:  # it is leaving by itself; nobody has to wait for that
            self.reap(child)
        self.close(child)

    def reap(self, child, *, is_dead=False):
        """Kill what is left of a child and its session; its status."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        if not is_dead:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        return os.waitpid(child.pid, 0)[1]

    def close(self, child):
        for fd in (child.channel, child.output_fd):
            with contextlib.suppress(KeyError):
                self.selector.unregister(fd)
            os.close(fd)

    def hand_back(self, inner, fault):
        """Give the answers of a second child to the one that asked for it, as fast as that one reads."""
        outer = inner.outer
        outer.inner = None
        for body in inner.answers:
            outer.pending += _REPLY.pack(b"a", len(body)) + body
        if fault is not None:
            outer.pending += _REPLY.pack(b"f", len(fault.encode())) + fault.encode()
        self.selector.modify(outer.channel, selectors.EVENT_READ | selectors.EVENT_WRITE, outer)

    def write(self, child):
        try:
            del child.pending[: os.write(child.channel, child.pending[:65536])]
        except BlockingIOError:
            return
        except OSError:  # it has gone; reading will show how
            child.pending.clear()
        if not child.pending:
            self.selector.modify(child.channel, selectors.EVENT_READ, child)

    def respond(self, header, output, answers):
        for part in (json.dumps(header).encode(), output, *answers):
            send(self.control, part)

    def kill_all(self):
        for child in [*self.children, *([self.spare] if self.spare else [])]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)


def _write_all(descriptor, data):
    with memoryview(data) as rest:
        at = 0
        while at < len(rest):
            at += os.write(descriptor, rest[at:])


def send(control, frame):
    control.sendall(inside.LENGTH.pack(len(frame)) + frame)


def receive(control):
    """One frame as bytes that can be wiped, or None at the end of the stream."""
    head = _receive_exactly(control, inside.LENGTH.size)
    return None if head is None else _receive_exactly(control, inside.LENGTH.unpack(head)[0])


def _receive_exactly(control, count):
    data = bytearray(count)
    view, have = memoryview(data), 0
    while have < count:
        n_read = control.recv_into(view[have:], min(count - have, 1 << 20))
        if not n_read:
            return None
        have += n_read
    view.release()
    return data


def _cause_of_death(status):
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            return "it used more processor time than its limit"
        return f"its process died of {signal.Signals(number).name} (often the memory limit)"
    return f"its process left with status {os.WEXITSTATUS(status)} before answering"


def main(descriptor, isolation):
    control = socket.socket(fileno=descriptor)
    system_calls, report = None, Report(isolation=isolation)
    if isolation == "jail":
        system_calls, report = enter(control)
    monty = importlib.import_module("agentrft.sandbox.monty") if isolation == "monty" else None
    world = inside.World(system_calls, monty.results if monty else inside.python_results)
    # Children inherit what exists now; freezing spares them copies of pages that only the collector would touch.
    gc.collect()
    gc.freeze()
    if isolation == "jail":
        report = examine(world, report, control)
    elif monty:
        report = dataclasses.replace(report, holes=tuple(tried(world, control, monty.holes)))
    send(control, report.as_json())
    worker = Worker(control, world)
    try:
        worker.run()
    finally:
        worker.kill_all()
