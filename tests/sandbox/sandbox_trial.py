"""The judge of the probes: what it puts up on the host, and whether a probe reached any of it.

Run as a script it is the driver of a mode (see `sandbox_modes`): it goes into the mode, tries every probe and prints
one JSON document: why there is no jail, if there is none, and then of Monty: what confined the worker, how many were
tried, what reached the host, what was not healthy after.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import sandbox_modes
from sandbox_probes import ABUSE, PROBES, Probe

from agentrft.errors import SandboxFault
from agentrft.sandbox.choice import choose
from agentrft.sandbox.process import ForkServer, Outcome, Program

HEALTH = (
    "import json, re\ndef f(text, reference):\n"
    "    found = set(json.loads(re.search(r'{.*}', text).group())['answer'].split())\n"
    "    return len(found & set(reference.split())) / len(found | set(reference.split()))\n"
)
SHORT_S, LONG_S = 0.2, 5.0


def _sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "300"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


class Host:
    """A secret, listeners, a place for markers and a victim; close it when done."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="agentrft-probe-"))
        self.folder.chmod(0o755)
        self.secret_text = f"CANARY-{secrets.token_hex(8)}"
        self.secret = self.folder / "secret.txt"
        self.secret.write_text(self.secret_text)
        os.environ["AGENTRFT_PROBE"] = self.secret_text
        self.canary_process = _sleeper()  # carries the secret in its environment
        self.marker = self.folder / "marker"
        self.path = str(self.folder / "socket")
        self.abstract = f"\0agentrft-{secrets.token_hex(4)}"
        self.calls: list[str] = []
        self._sockets = list(self._listen())
        self.victim = _sleeper()

    def _listen(self) -> Iterator[socket.socket]:
        tcp = socket.create_server(("127.0.0.1", 0))
        self.port = tcp.getsockname()[1]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", self.port))
        named, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        named.bind(self.path)
        abstract.bind(self.abstract)
        for name, server in (("TCP", tcp), ("Unix", named), ("abstract", abstract)):
            server.listen()
            threading.Thread(target=self._accept, args=(name, server), daemon=True).start()
            yield server
        threading.Thread(target=self._take_datagrams, args=(udp,), daemon=True).start()
        yield udp

    def _accept(self, name: str, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = server.accept()
                self.calls.append(name)
                with caller, contextlib.suppress(OSError):
                    caller.settimeout(0.5)
                    caller.recv(100)
                    caller.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")

    def _take_datagrams(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while server.recv(100) is not None:
                self.calls.append("UDP")

    def program(self, body: str) -> Program:
        for word, value in (
            ("'http://127.0.0.1:PORT/x'", repr(f"http://127.0.0.1:{self.port}/x")),
            ("SECRET", repr(str(self.secret))),
            ("MARKER", repr(str(self.marker))),
            ("FOLDER", repr(str(self.folder))),
            ("PORT", str(self.port)),
            ("SOCKET", repr(self.path)) if "connect(SOCKET" in body else ("SOCKET)", "SOCKET)"),
            ("ABSTRACT", repr(self.abstract)),
            ("VICTIM", str(self.victim.pid)),
        ):
            body = body.replace(word, value)
        source = "def f():\n" + "".join(f"    {line}\n" for line in body.split("\n"))
        return Program(source=source, function="f", filename="probe.py")

    def close(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in it
            each.close()
        for process in (self.victim, self.canary_process):
            process.kill()
            process.wait()
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()
        del os.environ["AGENTRFT_PROBE"]


async def reached(server: ForkServer, host: Host, probe: Probe) -> str | None:
    """How the probe reached the host; None when it did not."""
    host.calls.clear()
    if host.victim.poll() is not None:
        host.victim = _sleeper()
    worker = server._worker
    limit_s = SHORT_S if probe in ABUSE else LONG_S
    outcome = await _outcome(server, host.program(probe.body), limit_s)
    if probe.then:
        outcome = await _outcome(server, host.program(probe.then), limit_s)
    if probe.evidence in ("listener", "victim", "worker"):
        await asyncio.sleep(0.03)
    shown = outcome if isinstance(outcome, str) else f"{outcome.value!r} {outcome.output} {outcome.error}"
    found = {
        "secret": host.secret_text in shown,
        "passwd": "root:" in shown,
        "marker": _is_there_and_removed(host.marker),
        "listener": bool(host.calls),
        "victim": host.victim.poll() is not None,
        "worker": worker is not None and not worker.alive,
        "said": not isinstance(outcome, str) and "through" in str(outcome.value),
        "bounded": not isinstance(outcome, str) and outcome.error is None and outcome.value is not None,
    }
    # Every kind of evidence counts against every probe, but for what only the probe itself can say.
    general = [kind for kind, is_seen in found.items() if is_seen and kind not in ("said", "bounded")]
    if general or found[probe.evidence]:
        return f"{probe.name}: {', '.join(general) or probe.evidence} ({shown[:200]})"
    return None


async def is_healthy(server: ForkServer) -> bool:
    """Whether a grade made now is right: 2 words in common of 4 in all."""
    program = Program(source=HEALTH, function="f", filename="health.py", imports=("json", "re"))
    outcome = await server.call(program, ['so {"answer": "a b c"}', "b c d"], timeout_s=20)
    return outcome.value == 0.5


async def _outcome(server: ForkServer, program: Program, limit_s: float) -> Outcome | str:
    try:
        return await server.call(program, [], timeout_s=limit_s)
    except SandboxFault as fault:
        return str(fault)


def _is_there_and_removed(marker: Path) -> bool:
    if not (marker.exists() or marker.is_symlink()):
        return False
    marker.rmdir() if marker.is_dir() and not marker.is_symlink() else marker.unlink()
    return True


async def _drive(mode: str) -> None:
    sandbox_modes.enter(mode)
    host, server = Host(), None  # the host's parts belong to the user of the mode, who could harm them
    try:
        choice = choose("auto")
        server = ForkServer(isolation=choice.isolation or "jail", max_children=2, memory_bytes=500_000_000)
        report = await server.report()
        through, unhealthy, probes = [], [], [*PROBES, *ABUSE]
        for probe in probes:
            if (how := await reached(server, host, probe)) is not None:
                through.append(how)
            if not await is_healthy(server):
                unhealthy.append(probe.name)
        found = {"enforced": report.enforced, "tried": len(probes), "through": through, "unhealthy": unhealthy}
        print(json.dumps({"isolation": choice.isolation, "lacking": choice.lacking, **found}))  # noqa: T201
    finally:
        if server is not None:
            await server.close()
        host.close()


if __name__ == "__main__":
    asyncio.run(_drive(sys.argv[1]))
