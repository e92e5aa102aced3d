"""What hostile grader code tries: appendix B of our reliability notes and some more, one short function each.

SECRET, MARKER, FOLDER, PORT, SOCKET, ABSTRACT, VICTIM stand for what the judge (`sandbox_trial`) has put up on the
host.
Every body becomes `def f():`. `PROBES` has the ones that take milliseconds, `ABUSE` those that run into a limit, and
`HEAVY` those that use the machine up when nothing stops them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Evidence = Literal["secret", "passwd", "marker", "listener", "victim", "worker", "said", "bounded"]
"""What shows that the host was reached: the secret or /etc/passwd came back, the marker exists, somebody called a
listener, the victim died, the worker died, the code says `through` of what only itself can know; `bounded` probes must
end in a fault or an error within their time limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    name: str
    evidence: Evidence
    body: str
    unconfined: Literal["yes", "root", "no"]
    """Whether a plain process shows that the probe works: always, as root, or not (unsafe, or not to be seen there)."""
    then: str = ""
    """A second program, run afterwards in a child of its own, whose `through` counts."""


def _probe(name: str, evidence: Evidence, body: str, unconfined: Literal["yes", "root", "no"] = "yes") -> Probe:
    return Probe(name=name, evidence=evidence, body=body.strip("\n"), unconfined=unconfined)


_C = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
_SAYS = "return ('through ' if result == 0 else 'no ') + str(ctypes.get_errno())"
# The nonce stands in the child's own frames; frames made with it are the child's word, not the worker's.
_FORGES = (
    "import os, struct, sys\nframe = sys._getframe()\nwhile 'nonce' not in frame.f_locals: frame = frame.f_back\n"
    "nonce = frame.f_locals['nonce']\n"
)

READS = [
    _probe("open", "secret", "return open(SECRET).read()"),
    _probe("open by another root", "secret", "return open('/proc/self/root' + SECRET).read()"),
    _probe("open from above", "secret", "return open('../../../../../../..' + SECRET).read()"),
    _probe("os.open", "secret", "import os\nreturn os.read(os.open(SECRET, 0), 99).decode()"),
    _probe("FileIO", "secret", "import io\nreturn io.FileIO(SECRET).read().decode()"),
    _probe("linecache", "secret", "import linecache\nreturn ''.join(linecache.getlines(SECRET))"),
    _probe(
        "importlib loader",
        "secret",
        "from importlib.machinery import SourceFileLoader as L\nreturn L('x', SECRET).get_data(SECRET).decode()",
    ),
    _probe(
        "__subclasses__",
        "secret",
        """
for c in ().__class__.__base__.__subclasses__():
    if c.__name__ == 'FileLoader':
        return c.get_data(c('a', SECRET), SECRET).decode()
""",
    ),
    _probe("mapped file", "secret", "import mmap, os\nreturn bytes(mmap.mmap(os.open(SECRET, 0), 0, prot=1)).decode()"),
    _probe("/etc/passwd", "passwd", "return open('/etc/passwd').read()"),
    _probe("own environment", "secret", "import os\nreturn repr(dict(os.environ))", "no"),
    _probe("own /proc/environ", "secret", "return open('/proc/self/environ', 'rb').read().decode()", "no"),
    _probe(
        "every /proc/environ",
        "secret",
        """
import os
found = ''
for name in os.listdir('/proc') if os.path.isdir('/proc') else range(1, 500):
    try:
        found += open(f'/proc/{name}/environ', 'rb').read().decode(errors='replace')
    except Exception:
        pass
return '\\n'.join(line for line in found.split('\\0') if 'CANARY' in line)
""",
    ),
    _probe("parent's memory", "said", "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')\nreturn 'through'", "root"),
    _probe(
        "inherited descriptors",
        "said",
        """
import os
found = []
for fd in range(4, 4096):
    try:
        found.append((fd, os.fstat(fd).st_mode))
    except OSError:
        pass
return f'through {found}' if found else 'none'
""",
        "no",
    ),
    _probe(  # without Landlock the private root can be listed: there is nothing of the host's in it
        "the host root's listing",
        "said",
        "import os\nnames = os.listdir('/')\nreturn 'through ' + repr(names) if 'proc' in names else 'private'",
    ),
    _probe("the package's own folder", "said", "import os\nreturn 'through ' + repr(os.listdir(FOLDER))"),
]

WRITES = [
    _probe("write a file", "marker", "open(MARKER, 'w').write('x')"),
    _probe("make a folder", "marker", "import os\nos.mkdir(MARKER)"),
    _probe("link a file", "marker", "import os\nos.symlink('/', MARKER)"),
    _probe("rename a file", "marker", "import os\nos.rename(SECRET, MARKER)", "no"),
    _probe(
        "write into the library",
        "said",
        "import json, os\npath = os.path.join(os.path.dirname(json.__file__), 'zz_probe.py')\n"
        "open(path, 'w').close()\nos.unlink(path)\nreturn 'through'",
        "root",
    ),
    _probe(
        "write into /tmp",
        "said",
        "import os\nfor f in ('/tmp', '/var/tmp', '/dev/shm', '/run'):\n    try:\n        p = f + '/agentrft-probe'\n"
        "        open(p, 'w').close(); os.unlink(p)\n        return 'through ' + f\n    except OSError: pass",
    ),
    _probe("change rights", "said", "import os\nos.chmod(SECRET, 0o644)\nreturn 'through'"),
    _probe("fill the disk", "marker", "f = open(MARKER, 'wb')\nfor _ in range(300): f.write(bytes(1000))"),
]

NETWORK = [
    _probe("TCP", "listener", "import socket\nsocket.create_connection(('127.0.0.1', PORT), 2).sendall(b'x')"),
    _probe(
        "UDP",
        "listener",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
    ),
    _probe("Unix socket by path", "listener", "import socket\nsocket.socket(socket.AF_UNIX).connect(SOCKET)"),
    _probe("abstract Unix socket", "listener", "import socket\nsocket.socket(socket.AF_UNIX).connect(ABSTRACT)"),
    _probe(
        "urllib",
        "listener",
        "import urllib.request\nreturn urllib.request.urlopen('http://127.0.0.1:PORT/x', timeout=2).read().decode()",
    ),
    _probe("name look-up", "said", "import socket\nreturn 'through ' + repr(socket.getaddrinfo('localhost', 80))"),
    _probe("listening", "said", "import socket\ns = socket.socket()\ns.bind(('', 0)); s.listen()\nreturn 'through'"),
    _probe("socket pair", "said", "import socket\nsocket.socketpair()\nreturn 'through'"),
    _probe(
        "raw socket",
        "said",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\nreturn 'through'",
        "root",
    ),
]

PROGRAMS = [
    _probe("os.system", "marker", "import os\nos.system('touch ' + MARKER)"),
    _probe("subprocess", "marker", "import subprocess\nsubprocess.check_output(['/usr/bin/touch', MARKER])"),
    _probe(
        "posix_spawn", "marker", "import os\nos.waitpid(os.posix_spawn('/usr/bin/touch', ['touch', MARKER], {}), 0)"
    ),
    _probe("execv", "marker", "import os\nos.execv('/usr/bin/touch', ['touch', MARKER])"),
    _probe(
        "program in memory",
        "marker",
        "import os\nfd = os.memfd_create('x', 0)\nos.write(fd, ('#!/bin/sh\\ntouch ' + MARKER).encode())\n"
        "os.execve(fd, ['x'], {})",
    ),
    _probe(
        "fork", "said", "import os\npid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)\nreturn 'through'"
    ),
    _probe(
        "vfork by number",
        "said",
        _C + "pid = libc.syscall(57)\nif pid == 0: os._exit(0)\nreturn 'through' if pid > 0 else 'no'",
    ),
    _probe("thread", "said", "import threading\nthreading.Thread(target=print).start()\nreturn 'through'"),
]

PROCESSES = [
    _probe("kill the victim", "victim", "import os\nos.kill(VICTIM, 9)"),
    _probe("kill everybody", "victim", "import os\nos.kill(-1, 9)", "no"),
    _probe("kill the worker", "worker", "import os\nos.kill(os.getppid(), 9)\nimport time; time.sleep(0.1)"),
    _probe("kill process 1", "worker", "import os\nos.kill(1, 9)", "no"),
    _probe("kill the group", "victim", "import os\nos.killpg(os.getpgid(VICTIM), 9)", "no"),
    _probe("queue a signal", "victim", _C + "libc.sigqueue(VICTIM, 9, 0)"),
    _probe(
        "signal by a descriptor",
        "victim",
        "import fcntl, os, time\nfcntl.fcntl(3, 10, 9)\nfcntl.fcntl(3, fcntl.F_SETOWN, VICTIM)\n"
        "fcntl.fcntl(3, fcntl.F_SETFL, os.O_ASYNC)\nos.write(3, b'')\ntime.sleep(0.05)\nreturn 'tried'",
        "no",
    ),
    _probe("trace the worker", "said", _C + "result = libc.ptrace(16, os.getppid(), 0, 0)\n" + _SAYS, "no"),
    _probe(
        "read the victim's memory",
        "said",
        _C + "b = ctypes.create_string_buffer(8)\nclass V(ctypes.Structure):\n"
        "    _fields_ = [('b', ctypes.c_void_p), ('l', ctypes.c_size_t)]\n"
        "x, y = V(ctypes.addressof(b), 8), V(0x400000, 8)\n"
        "r = libc.process_vm_readv(VICTIM, ctypes.byref(x), 1, ctypes.byref(y), 1, 0)\n"
        "return 'through' if r > 0 or ctypes.get_errno() == 14 else 'no'",
    ),
    _probe("limit the worker", "said", "import resource, os\nresource.prlimit(os.getppid(), 7)\nreturn 'through'"),
    _probe("change priority of all", "said", "import os\nos.setpriority(os.PRIO_USER, 0, 19)\nreturn 'through'", "no"),
]

_NUMBERS = {
    **{"pivot_root": 155, "chroot": 161, "init_module": 175, "kexec_load": 246, "add_key": 248, "keyctl": 250},
    **{"perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308},
    **{"memfd_create": 319, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425, "pidfd_getfd": 438, "mknod": 133},
    **{"process_madvise": 440, "landlock_create_ruleset": 444, "personality": 135, "shmget": 29, "msgget": 68},
}

KERNEL = [
    _probe("new user namespace", "said", _C + "result = libc.unshare(0x10000000)\n" + _SAYS),
    _probe("mount", "said", _C + "result = libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)\n" + _SAYS, "no"),
    _probe(
        "dangerous calls",
        "said",
        _C + f"found = []\nfor name, number in {sorted(_NUMBERS.items())}:\n    ctypes.set_errno(0)\n"
        "    r = libc.syscall(ctypes.c_long(number), 0, 0, 0, 0, 0)\n"
        "    if r >= 0 or ctypes.get_errno() not in (1, 13): found.append((name, r, ctypes.get_errno()))\n"
        "return f'through {found}' if found else 'none'",
        "no",
    ),
    _probe(
        "AF_ALG", "said", "import socket\nsocket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)\nreturn 'through'", "no"
    ),
    _probe("writable code", "said", "import mmap\nmmap.mmap(-1, 4096, prot=7)\nreturn 'through'"),
    _probe(
        "code made of data",
        "said",
        _C + "import mmap\nm = mmap.mmap(-1, 4096)\naddress = ctypes.addressof(ctypes.c_char.from_buffer(m))\n"
        "result = libc.mprotect(ctypes.c_void_p(address), 4096, 5)\n" + _SAYS,
    ),
    _probe(
        "writable code of a file",
        "said",
        "import mmap, os, json\nmmap.mmap(os.open(json.__file__, 0), 4096, flags=2, prot=7)\nreturn 'through'",
    ),
    _probe(
        "x32 calls",
        "said",
        _C + "r = libc.syscall(ctypes.c_long(0x40000000 | 39))\nreturn 'through' if r > 0 else ''",
        "no",
    ),
    _probe("a terminal's input", "said", "import fcntl\nfcntl.ioctl(0, 0x5412, b'x')\nreturn 'through'", "no"),
]

DEATHS = [
    _probe("null pointer", "bounded", "import ctypes\nctypes.string_at(0)", "no"),
    _probe("silent exit", "bounded", "import os\nos._exit(0)", "no"),
    _probe("SIGKILL to itself", "bounded", "import os\nos.kill(os.getpid(), 9)", "no"),
    _probe("abort", "bounded", "import os\nos.abort()", "no"),
    _probe("SystemExit", "bounded", "raise SystemExit(0)", "no"),
    _probe("KeyboardInterrupt", "bounded", "raise KeyboardInterrupt", "no"),
    _probe(
        "forged answer",
        "bounded",
        "import os\nfor fd in range(1, 20):\n    try: os.write(fd, b'{\"type\": 1}')\n"
        "    except OSError: pass\nos._exit(0)",
        "no",
    ),
    _probe("forged request", "bounded", _FORGES + "os.write(3, nonce + struct.pack('>cII', b'r', 0, 0))", "no"),
    _probe(
        "answer and more",
        "bounded",
        _FORGES + "os.write(3, nonce + struct.pack('>cII', b'a', 2, 0) + b'{}' + nonce)\nimport time; time.sleep(9)",
        "no",
    ),
    _probe(
        "request for too much",
        "bounded",
        _FORGES + "os.write(3, nonce + struct.pack('>cII', b'r', 4, 9) + b'\\xff\\xff\\xff\\xff')",
        "no",
    ),
    _probe("channel closed", "bounded", "import os\nos.close(3)\nreturn 1", "no"),
    _probe("deep result", "bounded", "x = []\nfor _ in range(5000): x = [x]\nreturn x", "no"),
    _probe("6 GB of text", "bounded", "return len('x' * (6 * 10**9))", "no"),
    _probe("endless list", "bounded", "x = []\nwhile True: x.append(bytearray(50_000_000))", "no"),
    _probe("all descriptors", "bounded", "import os\nwhile True: os.dup(0)", "no"),
    Probe(
        name="patched builtins",
        evidence="said",
        body="import builtins, json\nbuiltins.PLANTED = 1\njson.loads = json.dumps = None\nreturn 'planted'",
        then="import builtins, json\nreturn 'through' if hasattr(builtins, 'PLANTED') or not json.loads else 'clean'",
        unconfined="no",
    ),
]

PROBES = [*READS, *WRITES, *NETWORK, *PROGRAMS, *PROCESSES, *KERNEL, *DEATHS]

ABUSE = [
    _probe("endless loop", "bounded", "while True: pass", "no"),
    _probe("slow pattern", "bounded", "import re\nreturn re.match(r'(a+)+$', 'a' * 40 + 'b')", "no"),
    _probe("huge number", "bounded", "return str(7 ** 10**8)[:9]", "no"),
    _probe("endless sleep", "bounded", "import time\nwhile True: time.sleep(100)", "no"),
    _probe(
        "ignored signals",
        "bounded",
        "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n    except Exception: pass\n"
        "while True: pass",
        "no",
    ),
]

HEAVY = [
    _probe(
        "thread bomb",
        "said",
        "import threading, time\nfor _ in range(300):\n"
        "    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\nreturn 'through'",
        "no",
    ),
    _probe(
        "fork bomb",
        "said",
        "import os, time\nfor _ in range(300):\n    if os.fork() == 0: time.sleep(20); os._exit(0)\nreturn 'through'",
        "no",
    ),
    _probe(
        "unpacked bomb",
        "bounded",
        "import zlib\nd = zlib.compress(bytes(10**8))\nx = [zlib.decompress(d) for _ in range(60)]\nreturn len(x)",
        "no",
    ),
    _probe("huge result", "bounded", "return 'x' * 200_000_000", "no"),
    _probe("flood of text", "said", "for _ in range(3000): print('y' * 100_000)\nreturn 'done'", "no"),
    _probe(
        "endless recursion",
        "bounded",
        "import sys\nsys.setrecursionlimit(10**9)\ndef g(n): return g(n + 1)\nreturn g(0)",
        "no",
    ),
]
