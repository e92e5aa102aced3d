"""The process that runs the files of a job's Python tools once, and forks a worker for every episode.

Standard library only; run as a script by `process`, so that it imports nothing but what it and the tools need: forking
is the cheaper the less there is, and a process that holds torch cannot safely be forked. It is told `{path, files}` in
a frame over the socket whose number it is given, and answers `{}`, or `{fault}` when a file raises. From then on a
request is a letter and a worker's number: `f` (fork one; its socket comes with the message) or `k` (kill it). It tells
`{worker, pid}` of a worker that began, `{worker, cause, printed}` of one that ended. When the socket closes, or its
parent dies, everything dies.
"""

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import importlib.util
import json
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import traceback
import warnings
from pathlib import Path

REQUEST = struct.Struct(">cI")
_MAX_PRINTED_BYTES = 4000
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_PRCTL = ctypes.CDLL(None).prctl if sys.platform.startswith("linux") else lambda *_: None
_BROKEN = 70


def _worker_module():
    path = Path(__file__).with_name("process_worker.py")
    return run_file("_agentrft_worker", str(path), path.read_bytes())


class Child:
    """One worker, seen from here."""

    def __init__(self, number, pid, output):
        self.number = number
        self.pid = pid
        self.output = output
        self.printed = bytearray()

    def drain(self):
        """Keep the end of what it has printed; False when no more will come."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.output, 1 << 16):
                self.printed += data
                del self.printed[:-_MAX_PRINTED_BYTES]
            return False
        return True


class Forker:
    def __init__(self, control, modules, worker):
        self.control = control
        self.modules = modules
        self.worker = worker
        self.children = {}
        self.selector = selectors.DefaultSelector()
        self.wake, self.wake_end = os.pipe()
        self.is_ending = False
        self.pid = os.getpid()
        self.began_with = self.processes()

    def run(self):
        for fd in (self.wake, self.wake_end):
            os.set_blocking(fd, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.set_wakeup_fd(self.wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self.end)  # which the system sends when the parent dies
        _PRCTL(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.selector.register(self.wake, selectors.EVENT_READ)
        self.selector.register(self.control, selectors.EVENT_READ)
        while not self.is_ending:
            for key, _ in self.selector.select():
                if key.data is not None:
                    # Reaped a moment ago, its descriptor may be another's by now.
                    if self.children.get(key.data.number) is key.data and not key.data.drain():
                        self.selector.unregister(key.data.output)
                elif key.fd == self.wake:
                    os.read(self.wake, 4096)
                    self.reap()
                else:
                    self.take_request()

    def end(self, *_):
        self.is_ending = True

    def take_request(self):
        data, fds, _, _ = socket.recv_fds(self.control, REQUEST.size, 1)
        if not data:
            self.is_ending = True
            return
        letter, number = REQUEST.unpack(data)
        if letter == b"f" and not fds:
            self.tell(worker=number, cause="could not be started: too many open files", printed="")
        elif letter == b"f":
            self.fork(number, socket.socket(fileno=fds[0]))
        elif number in self.children and not self.reap_one(self.children[number]):
            self.kill(self.children[number])

    def fork(self, number, channel):
        channel.set_inheritable(False)  # else programs that tools start would hold it open
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        with channel:
            try:
                output, output_end = os.pipe()
                pid = self.fork_quietly()
            except OSError as error:
                self.tell(worker=number, cause=f"could not be started: {error}", printed="")
                return
            if pid == 0:
                self.become_worker(channel, output, output_end)
        os.close(output_end)
        os.set_blocking(output, False)
        self.children[number] = Child(number, pid, output)
        self.selector.register(output, selectors.EVENT_READ, self.children[number])
        self.tell(worker=number, pid=pid)

    def fork_quietly(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads that the files started: told once
            return os.fork()

    def become_worker(self, channel, output, output_end):
        """Own session, own output, nothing of this process's own descriptors; never returns."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            _PRCTL(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            if os.getppid() != self.pid:
                os._exit(_BROKEN)
            os.dup2(output_end, 1)
            os.dup2(output_end, 2)
            self.selector.close()
            ours = (self.wake, self.wake_end, self.control.fileno(), output, output_end)
            for fd in (*ours, *(child.output for child in self.children.values())):
                os.close(fd)
            faulthandler.enable(2)
            with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123
                score.write("500")  # rather a tool than the job, when the machine runs out of memory
            self.worker.Worker(channel, self.modules).serve()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(_BROKEN)

    def kill(self, child):
        for send in (os.killpg, os.kill):  # the first finds nothing while the worker has not made its session
            with contextlib.suppress(ProcessLookupError, PermissionError):
                send(child.pid, signal.SIGKILL)

    def reap(self):
        for child in list(self.children.values()):
            self.reap_one(child)
        self.sweep(os.WNOHANG)  # what this leaves in turn comes with the next signal

    def reap_one(self, child):
        """Whether it had ended; then nothing is left of it."""
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if not pid:
            return False
        del self.children[child.number]
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        child.drain()
        with contextlib.suppress(KeyError):
            self.selector.unregister(child.output)
        os.close(child.output)
        self.tell(worker=child.number, cause=cause_of_death(status), printed=child.printed.decode("utf-8", "replace"))
        return True

    def sweep(self, options):
        """Kill what workers left behind in other sessions, which Linux makes ours when they die; whether any was."""
        workers = {child.pid for child in self.children.values()}
        strays = self.processes() - workers - self.began_with
        for pid in strays:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, options)
        return bool(strays)

    def processes(self):
        """The children of this process; none where the system does not tell."""
        found = set()
        for listed in Path("/proc/self/task").glob("*/children"):
            with contextlib.suppress(OSError):  # of a thread that has ended
                found.update(map(int, listed.read_text().split()))
        return found

    def tell(self, **event):
        send(self.control, event)

    def kill_all(self):
        for child in self.children.values():
            self.kill(child)
            os.waitpid(child.pid, 0)
        self.children.clear()
        while self.sweep(0):
            pass


def cause_of_death(status):
    if os.WIFEXITED(status):
        return f"left with exit code {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    if number == signal.SIGKILL:
        return "died of SIGKILL (often the system's memory limit)"
    try:
        return f"died of {signal.Signals(number).name}"
    except ValueError:  # a real-time signal
        return f"died of signal {number}"


def run_file(name, path, source):
    """The module that the file's source makes."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while the file runs
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
    return module


def send(control, message):
    data = json.dumps(message).encode()
    control.sendall(struct.pack(">I", len(data)) + data)


def receive(control):
    (length,) = struct.unpack(">I", control.recv(4, socket.MSG_WAITALL))
    return json.loads(control.recv(length, socket.MSG_WAITALL))


def main(descriptor):
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    job = receive(control)
    sys.argv[1:] = []
    sys.path[:] = job["path"]
    worker = _worker_module()
    modules = {}
    for name, path, source in job["files"]:
        try:
            modules[name] = run_file(name, path, source.encode("latin-1"))
        except BaseException as error:
            send(control, {"fault": f"{path} {worker.failure(error)['fault']}"})
            os._exit(0)
    asyncio.new_event_loop().close()  # what the first one prepares is there for all workers
    gc.collect()
    gc.freeze()  # spares workers the copies of pages that only the collector would touch
    forker = Forker(control, modules, worker)
    send(control, {"threads": [thread.name for thread in threading.enumerate()][1:]})
    try:
        forker.run()
    except BaseException:
        traceback.print_exc()
    finally:
        forker.kill_all()
        os._exit(0)  # threads of the files do not keep it


if __name__ == "__main__":
    main(int(sys.argv[1]))
