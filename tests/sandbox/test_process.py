"""The fork server, jailed and plain: fresh processes, limits, and failures that stay with their call."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from agentrft.errors import SandboxFault
from agentrft.sandbox import worker
from agentrft.sandbox.layers import Isolation
from agentrft.sandbox.process import ForkServer, Outcome, Program, _outcome


def _program(source: str, *imports: str) -> Program:
    return Program(source=source, function="f", filename="code.py", imports=imports)


async def _run(server: ForkServer, source: str, *arguments: object, timeout_s: float = 20.0) -> Outcome:
    return await server.call(_program(source), arguments, timeout_s=timeout_s)


@pytest.fixture(params=["jail", "process"])
def isolation(request) -> Isolation:
    return request.param


@pytest.fixture
async def server(isolation):
    server = ForkServer(isolation=isolation, max_children=4, memory_bytes=500_000_000)
    yield server
    await server.close()


@pytest.fixture
async def plain_server():
    server = ForkServer(isolation="process", max_children=4, memory_bytes=500_000_000)
    yield server
    await server.close()


async def test_the_value_its_exact_type_and_what_was_printed_come_back(server):
    outcome = await _run(server, "def f(a, b):\n    print('héllo')\n    return a + b", 1, 2.5)
    assert (outcome.value, outcome.kind, outcome.output) == (3.5, "builtins.float", "héllo\n")
    assert outcome.error is None
    assert 0 < outcome.wall_s < 20


@pytest.mark.parametrize(
    ("result", "value", "kind"),
    [
        ("True", True, "builtins.bool"),
        ("None", None, "builtins.NoneType"),
        ("{'a': [1]}", {"a": [1]}, "builtins.dict"),
        ("object()", None, "builtins.object"),
        ("type('Odd', (float,), {})(1)", 1.0, "__grader__.Odd"),
        ("10 ** 5000", None, "builtins.int"),
    ],
)
async def test_types_are_told_apart(server, result, value, kind):
    outcome = await _run(server, f"def f(): return {result}")
    assert (outcome.value, outcome.kind) == (value, kind)


async def test_an_exception_comes_back_with_a_traceback_of_the_users_lines_only(server):
    outcome = await _run(server, "def f():\n    return g()\n\ndef g():\n    return 1 / 0\n")
    assert outcome.error == "ZeroDivisionError: division by zero"
    assert outcome.kind is None
    assert outcome.traceback == (
        "Traceback (most recent call last):\n"
        '  File "code.py", line 2, in f\n    return g()\n           ^^^\n'
        '  File "code.py", line 5, in g\n    return 1 / 0\n           ~~^~~\n'
        "ZeroDivisionError: division by zero\n"
    )


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("f()", "RecursionError: maximum recursion depth exceeded"),
        ("return 'x' * 200_000", "the result is larger than 64000 bytes"),
        ("return bytearray(900_000_000)", "MemoryError"),
        ("[open('/dev/null') for _ in range(100)]", "OSError: [Errno 24] Too many open files"),
    ],
)
async def test_what_the_code_does_to_itself_is_its_error(server, body, error):
    outcome = await _run(server, f"def f():\n    {body}")
    assert outcome.error is not None
    assert outcome.error.startswith(error)


async def test_written_files_are_cut_in_a_plain_process(plain_server):
    body = "open('/dev/shm/agentrft-big', 'wb').write(bytes(2_000_000))"
    outcome = await _run(plain_server, f"def f():\n    {body}")
    assert outcome.error is not None
    assert outcome.error.startswith("OSError: [Errno 27] File too large")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("import os; os._exit(3)", "its process left with status 3 before answering"),
        ("import ctypes; ctypes.string_at(0)", "its process died of SIGSEGV"),
        ("import os; os.write(3, b'forged')", "it wrote to a descriptor that is not its own"),
        ("while True: pass", "it ran longer than 0.5 s and was stopped"),
        ("import time; time.sleep(60)", "it ran longer than 0.5 s and was stopped"),
        ("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)", "it ran longer than 0.5 s"),
        ("import os; os.close(3); import time; time.sleep(60)", "its process died of SIGKILL"),
    ],
)
async def test_deaths_are_faults_and_the_next_call_is_unharmed(server, body, fault):
    with pytest.raises(SandboxFault) as caught:
        await _run(server, f"def f():\n    {body}", timeout_s=0.5)
    assert str(caught.value).startswith(fault)
    assert (await _run(server, "def f(): return 7")).value == 7


async def test_each_call_is_a_fresh_process(server):
    dirty = "import json, builtins\ndef f():\n    json.JSONDecoder = builtins.zip = None\n    return 1"
    assert (await _run(server, dirty)).value == 1
    clean = "import json\ndef f(): return [zip is None, json.JSONDecoder is None]"
    assert (await _run(server, clean)).value == [False, False]
    pids = {(await _run(server, "import os\ndef f(): return os.getpid()")).value for _ in range(5)}
    assert len(pids) == 5


async def test_the_environment_is_clean(server, monkeypatch):
    monkeypatch.setenv("AGENTRFT_SECRET", "s3cret")
    seen = (await _run(server, "import os, sys\ndef f(): return [dict(os.environ), sys.path, os.getcwd()]")).value
    assert "s3cret" not in json.dumps(seen)
    assert set(seen[0]) <= {
        *("PATH", "LANG", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "LC_CTYPE", "__CF_USER_TEXT_ENCODING"),
        *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    }
    assert str(Path.cwd()) not in seen[1]
    assert seen[2] == "/"


async def test_a_child_has_no_descriptors_but_its_own(server):
    source = (
        "import os\ndef f():\n    found = []\n    for fd in range(1000):\n        try: os.fstat(fd); found.append(fd)\n"
        "        except OSError: pass\n    return found"
    )
    calls = [_run(server, source) for _ in range(8)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call) for call in calls]
    assert [task.result().value for task in tasks] == [[0, 1, 2, 3]] * 8


async def test_hashing_is_the_same_in_every_worker(server):
    first = (await _run(server, "def f(): return hash('a')")).value
    other = ForkServer()
    assert (await _run(other, "def f(): return hash('a')")).value == first
    await other.close()


async def test_printing_without_end_is_cut_and_does_not_block(server):
    outcome = await _run(server, "def f():\n    for _ in range(2000): print('x' * 1000)\n    return 1")
    assert outcome.value == 1
    assert len(outcome.output) == worker.MAX_OUTPUT_BYTES


async def test_a_process_that_a_plain_one_starts_dies_with_it(plain_server):
    source = "import os, time\ndef f():\n    pid = os.fork()\n    if pid == 0: time.sleep(60)\n    return pid"
    pid = (await _run(plain_server, source)).value
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"process {pid} is still there")


async def test_calls_run_side_by_side_up_to_the_limit(isolation):
    server = ForkServer(isolation=isolation, max_children=2)
    source = (
        "import time\ndef f():\n    start = time.monotonic()\n    time.sleep(0.2)\n    return [start, time.monotonic()]"
    )
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(server, source)) for _ in range(6)]
    spans = [task.result().value for task in tasks]
    at_once = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert max(at_once) == 2
    await server.close()


async def test_a_dead_worker_costs_its_calls_and_is_started_again(server):
    await _run(server, "def f(): return 1")
    task = asyncio.create_task(_run(server, "import time\ndef f(): time.sleep(60)"))
    await asyncio.sleep(0.2)
    os.kill(server._worker._process.pid, signal.SIGKILL)
    with pytest.raises(SandboxFault, match="the sandbox's worker died"):
        await task
    assert (await _run(server, "def f(): return 2")).value == 2


async def _waiting_child(server):
    """The one that was forked while the last call worked, once that call's own is buried."""
    worker = psutil.Process(server._worker._process.pid)
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(psutil.NoSuchProcess):  # buried while we look
                leaves = [one for one in worker.children(recursive=True) if not one.children()]
                if len(leaves) == 1:
                    return leaves[0]
            await asyncio.sleep(0.01)


async def test_a_child_that_dies_while_it_waits_costs_nothing(server):
    await _run(server, "def f(): return 1")
    waiting = await _waiting_child(server)
    waiting.kill()
    psutil.wait_procs([waiting], timeout=0.2)  # a zombie stays until the worker looks
    assert (await _run(server, "def f(): return 2")).value == 2


async def test_a_child_that_waits_gets_what_is_imported_later(server):
    await _run(server, "def f(): return 1")
    program = _program("import sys\ndef f(): return 'rapidfuzz' in sys.modules", "rapidfuzz")
    assert [(await server.call(program, [], timeout_s=20)).value for _ in range(2)] == [True, True]


async def test_a_cancelled_call_is_stopped_and_gives_its_slot_back(isolation):
    server = ForkServer(isolation=isolation, max_children=1)
    await _run(server, "def f(): return 1")
    started = time.monotonic()
    task = asyncio.create_task(_run(server, "import time\ndef f(): time.sleep(60)"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await _run(server, "def f(): return 2")).value == 2
    assert time.monotonic() - started < 30
    await server.close()


async def test_closing_ends_calls_under_way_and_may_be_repeated(server):
    task = asyncio.create_task(_run(server, "import time\ndef f(): time.sleep(60)"))
    await asyncio.sleep(0.2)
    await server.close()
    await server.close()
    with pytest.raises(SandboxFault):
        await task
    with pytest.raises(SandboxFault, match="closed"):
        await _run(server, "def f(): return 1")


def test_one_event_loop_after_another():
    server = ForkServer(max_children=1)

    async def crowd() -> list[object]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_run(server, "def f(): return 1")) for _ in range(3)]
        return [task.result().value for task in tasks]

    assert asyncio.run(crowd()) == [1, 1, 1]
    assert asyncio.run(crowd()) == [1, 1, 1]
    asyncio.run(server.close())


async def test_arguments_must_be_json(server):
    with pytest.raises(TypeError):
        await _run(server, "def f(a): return 1", object())
    lone = await _run(server, "def f(text): return len(text)", "a\ud800")
    assert lone.value == 2


async def test_warm_modules_are_imported_once_and_big_messages_pass(server):
    program = _program("import numpy\ndef f(text): return float(numpy.mean([len(text)]))", "numpy")
    for _ in range(2):
        outcome = await server.call(program, ["x" * 3_000_000], timeout_s=60)
        assert outcome.value == 3_000_000.0


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"1", b'{"type": 3}', b'{"type": "a", "error": "b"}', b"[" * 60_000]
)
def test_an_answer_that_is_none_is_a_fault(body):
    found = _outcome(body, b"", 0.0)
    assert isinstance(found, SandboxFault)
    assert "not a result" in str(found)


async def test_a_call_is_much_cheaper_than_starting_an_interpreter(server):
    # 2 ms against 20 ms on an idle machine; side by side, because this one may be busy
    source = "def f(): return 1"
    await _run(server, source)
    calls, starts = [], []
    for _ in range(8):
        begin = time.perf_counter()
        await _run(server, source)
        between = time.perf_counter()
        process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-c", "pass")
        await process.wait()
        calls.append(between - begin)
        starts.append(time.perf_counter() - between)
    assert min(calls) < min(starts) / 2
