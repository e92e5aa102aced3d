"""Hostile code against the jail and Monty: nothing of it may reach the host, and the next grade must be right.

Judged from outside (see `sandbox_trial`). Where a plain process may safely show it, each probe is seen to work there:
a probe that never works proves nothing. To Monty most of them are names that it does not know.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sandbox_modes import MODES, REFUSED
from sandbox_probes import ABUSE, HEAVY, PROBES
from sandbox_trial import Host, is_healthy, reached

from agentrft.sandbox.process import ForkServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the jail needs Linux")

ALL = {probe.name: probe for probe in [*PROBES, *ABUSE, *HEAVY]}


@pytest.fixture(scope="module")
def host():
    host = Host()
    yield host
    host.close()


Trial = Callable[[str], tuple[str | None, bool]]


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as runner:  # one loop for all, so that one worker survives (or does not) every probe
        yield runner


def _trial(runner: asyncio.Runner, host: Host, server: ForkServer) -> Iterator[Trial]:
    async def both(name: str) -> tuple[str | None, bool]:
        return await reached(server, host, ALL[name]), await is_healthy(server)

    yield lambda name: runner.run(both(name))
    runner.run(server.close())


@pytest.fixture(scope="module")
def jailed(runner, host):
    yield from _trial(runner, host, ForkServer(max_children=2, memory_bytes=500_000_000))


@pytest.fixture(scope="module")
def in_monty(runner, host):
    yield from _trial(runner, host, ForkServer(isolation="monty", max_children=2, memory_bytes=500_000_000))


@pytest.fixture(scope="module")
def unconfined(runner, host):
    yield from _trial(runner, host, ForkServer(isolation="process", max_children=2, memory_bytes=500_000_000))


@pytest.mark.parametrize("name", [probe.name for probe in [*PROBES, *ABUSE]])
def test_nothing_gets_out_of_the_jail(jailed, name):
    assert jailed(name) == (None, True)


@pytest.mark.soak
@pytest.mark.parametrize("name", [probe.name for probe in HEAVY])
def test_heavy_abuse_stays_in_the_jail(jailed, name):
    assert jailed(name) == (None, True)


@pytest.mark.parametrize("name", [probe.name for probe in [*PROBES, *ABUSE]])
def test_nothing_gets_out_of_monty(in_monty, name):
    assert in_monty(name) == (None, True)


@pytest.mark.soak
@pytest.mark.parametrize("name", [probe.name for probe in HEAVY])
def test_heavy_abuse_stays_in_monty(in_monty, name):
    assert in_monty(name) == (None, True)


@pytest.mark.parametrize("name", [probe.name for probe in PROBES if probe.unconfined != "no"])
def test_the_probe_works_in_a_plain_process(unconfined, name):
    if ALL[name].unconfined == "root" and os.geteuid() != 0:
        return  # an ordinary user's plain process cannot show it; the jail has been tried all the same
    how, is_healthy_after = unconfined(name)
    assert how is not None
    assert is_healthy_after


def _in_mode(mode: str) -> dict:
    if os.geteuid() != 0 and not mode.startswith("nobody"):
        mode = mode.replace("root", "user")  # we are an ordinary user already
    driver = Path(__file__).with_name("sandbox_trial.py")
    done = subprocess.run(
        [sys.executable, driver, mode],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(mode, marks=() if mode in ("nobody", "nobody+container") else pytest.mark.soak)
        for mode in MODES
        if os.geteuid() == 0 or mode.startswith("root")
    ],
)
def test_nothing_gets_out_in_any_mode(mode):
    found = _in_mode(mode)
    assert (found["through"], found["unhealthy"]) == ([], [])
    assert (found["isolation"], found["tried"]) == ("jail", len(PROBES) + len(ABUSE))
    assert ("landlock" in found["enforced"]) == ("gvisor" not in mode)
    assert ("root" in found["enforced"]) == ("container" not in mode)
    assert {"seccomp", "no_new_privs", "capabilities", "limits"} <= set(found["enforced"])


@pytest.mark.parametrize("mode", REFUSED)
def test_with_too_few_layers_it_is_monty_with_the_reason_and_nothing_gets_out(mode):
    found = _in_mode(mode if os.geteuid() == 0 else mode.replace("nobody", "user"))
    assert (found["isolation"], found["through"], found["unhealthy"]) == ("monty", [], [])
    assert found["tried"] == len(PROBES) + len(ABUSE)
    reason = "no system-call filter" if "nofilter" in mode else "no Landlock (landlock_create_ruleset: Function not"
    assert found["lacking"][0].startswith(f"no jail: this machine does not enforce enough layers: {reason}")
