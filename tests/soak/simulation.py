"""Deterministic simulation of the orchestration: `simulation.py SEED …` replays what a seed does, and prints it.

Schedulers, store and state machine are the real ones, over real SQLite; processes are generators, time is a counter,
and one random generator decides which faults come when. After the faults everything must settle, and the history must
be one that could have happened without them:

* every acknowledged job is there, and ends as its user wanted;
* a job's statuses are a legal chain, and it succeeds once;
* tokens of accepted writes never go back, and under one token steps come one after the other;
* a resumed job never begins before the newest checkpoint that is whole;
* the final weights are those of an undisturbed job.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agentrft.errors import StoreFault, UserError
from agentrft.jobs import control
from agentrft.runtime.scheduler import Scheduler
from agentrft.store import SqlStore, open_store
from agentrft.store.database import Database
from agentrft.store.states import FINAL, FOLLOWS
from agentrft.testing import FakeClock, ScriptedDisk, ScriptedMachine, ScriptedRuntime, ScriptedWorker
from agentrft.testing.worker import final_weights

STEPS = 4
STORM_PASSES = 30
CALM_PASSES = 400
DAY_S = 86_400.0


class JumpyClock(FakeClock):
    """Its wall time jumps; its monotonic time never does."""

    def jump(self, seconds: float) -> None:
        self._now += seconds


class Refusals:
    """When writes are refused, and how likely each one is then."""

    def __init__(self, rng: random.Random) -> None:
        self.share = 0.0
        self._rng = rng

    def now(self) -> bool:
        return self.share > 0 and self._rng.random() < self.share


class MoodyDatabase(Database):
    """A database that refuses some writes, as a full disk or a lock that somebody keeps."""

    refusals: Refusals

    @contextmanager
    def write(self, job_id: str | None = None) -> Iterator[Any]:
        if self.refusals.now():
            raise StoreFault("database is locked")
        with super().write(job_id) as connection:
            yield connection

    def fenced(self, job_id: str, token: int) -> Database:
        return moody(self.engine, self.clock, self.refusals, (job_id, token))


def moody(engine: Any, clock: Any, refusals: Refusals, fence: tuple[str, int] | None = None) -> MoodyDatabase:
    database = MoodyDatabase(engine, clock=clock, fence=fence)
    database.refusals = refusals
    return database


class World:
    """Two machines that share a store and a disk, their servers and workers, users, and what goes wrong."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.clock = JumpyClock()
        self.refusals = Refusals(self.rng)
        plain = open_store(folder, clock=self.clock)
        self.store = SqlStore(moody(plain.database.engine, self.clock, self.refusals))
        self.disk = ScriptedDisk()
        self.damaged: set[str] = set()
        """Jobs of which a checkpoint was damaged."""
        self.machines = [
            ScriptedMachine(name, ScriptedWorker(self.store, self.clock, self.disk, steps=STEPS)) for name in ("a", "b")
        ]
        self.servers: list[tuple[Scheduler, ScriptedRuntime]] = []
        self.jobs: list[str] = []
        self.cancelled: set[str] = set()
        self.told: list[str] = []
        for _ in range(self.rng.randint(1, 3)):
            self.boot()

    def say(self, text: str) -> None:
        self.told.append(f"{self.clock.monotonic():7.1f} {text}")

    # What happens

    def boot(self) -> None:
        runtime = self.rng.choice(self.machines).boot()
        concurrency = self.rng.randint(1, 2)
        scheduler = Scheduler(
            self.store, runtime, self.clock, owner=runtime.owner, concurrency=concurrency, max_restarts=10_000
        )
        self.servers.append((scheduler, runtime))
        self.say(f"server {runtime.owner} with concurrency {concurrency}")

    def go(self) -> None:
        for scheduler, _ in self.servers:
            scheduler.attend()
        for machine in self.machines:
            machine.advance()
        self.clock.advance(self.rng.choice((0.5, 2.0, 5.0)))

    def storm(self) -> None:
        """Maybe a user, maybe a fault."""
        if self.rng.random() < 0.35:
            with suppress(StoreFault, UserError):
                self.rng.choice((self.create, self.pause, self.resume, self.cancel, self.resume))()
        if self.rng.random() < 0.6:
            self.rng.choices(*zip(*self.faults(), strict=True))[0]()  # type: ignore[misc]

    def faults(self) -> list[tuple[Any, int]]:
        return [
            (self.crash_worker, 5),
            (self.hang_worker, 3),
            (self.wake_worker, 2),
            (self.kill_server, 3),
            (self.boot, 2),
            (self.reboot_machine, 1),
            (self.jump_clock, 2),
            (self.change_refusals, 3),
            (self.change_starts, 1),
            (self.steal, 2),
            (self.damage, 2),
        ]

    # Users

    def create(self) -> None:
        job_id = f"ftjob-{len(self.jobs)}"
        status = self.rng.choice(("validating_files", "queued"))
        self.store.create_job({"id": job_id, "status": status, "runner": "server", "kind": "reinforcement"})
        self.jobs.append(job_id)
        self.say(f"created {job_id}")

    def pause(self) -> None:
        job_id = self.rng.choice(self.jobs)
        control.pause(self.store, job_id, wait_s=0.0)
        self.say(f"asked to pause {job_id}")

    def resume(self) -> None:
        job_id = self.rng.choice(self.jobs)
        control.resume(self.store, job_id)
        self.say(f"asked to resume {job_id}")

    def cancel(self) -> None:
        if self.rng.random() < 0.3:
            job_id = self.rng.choice(self.jobs)
            control.cancel(self.store, job_id)
            self.cancelled.add(job_id)
            self.say(f"cancelled {job_id}")

    # Faults

    def living(self) -> list[Any]:
        return [process for machine in self.machines for process in machine.living]

    def crash_worker(self) -> None:
        if living := self.living():
            process = self.rng.choice(living)
            next(m for m in self.machines if m.knows(process.owner)).crash(process, self.rng.choice((9, 11, 15)))
            self.say(f"crashed {process.owner} on {process.worker}")

    def hang_worker(self) -> None:
        if living := self.living():
            process = self.rng.choice(living)
            process.hangs = True
            self.say(f"hung {process.owner} on {process.worker}")

    def wake_worker(self) -> None:
        for process in self.living():
            process.hangs = False
        self.say("woke every worker")

    def kill_server(self) -> None:
        if self.servers:
            _, runtime = self.servers.pop(self.rng.randrange(len(self.servers)))
            runtime.machine.kill_server(runtime.owner)
            self.say(f"killed {runtime.owner}")

    def reboot_machine(self) -> None:
        machine = self.rng.choice(self.machines)
        for process in machine.living:
            machine.crash(process)
        for pair in [pair for pair in self.servers if pair[1].machine is machine]:
            machine.kill_server(pair[1].owner)
            self.servers.remove(pair)
        self.say(f"rebooted {machine.name}")

    def jump_clock(self) -> None:
        seconds = self.rng.choice((-DAY_S, -100.0, -5.0, 5.0, 100.0, DAY_S))
        self.clock.jump(seconds)
        self.say(f"the clock jumped by {seconds:g} s")

    def change_refusals(self) -> None:
        self.refusals.share = self.rng.choice((0.0, 0.0, 0.2, 1.0))
        self.say(f"the store refuses {self.refusals.share:.0%}")

    def change_starts(self) -> None:
        machine = self.rng.choice(self.machines)
        machine.refuses_starts = not machine.refuses_starts
        self.say(f"{machine.name} refuses starts: {machine.refuses_starts}")

    def steal(self) -> None:
        """A server that nobody sees (its clock is wrong) takes a job from whoever works on it."""
        if living := self.living():
            worker = self.rng.choice(living).worker
            with suppress(StoreFault):
                self.store.requeue(worker.job_id, "stolen", token=worker.token)
                self.say(f"stole {worker}")

    def damage(self) -> None:
        """The newest checkpoint of a job is damaged, found so, and set aside."""
        if whole := [job_id for job_id, saved in self.disk.checkpoints.items() if saved]:
            job_id = self.rng.choice(whole)
            step = max(self.disk.checkpoints[job_id])
            del self.disk.checkpoints[job_id][step]
            self.damaged.add(job_id)
            self.say(f"damaged step {step} of {job_id}")

    # The end

    def heal(self) -> None:
        """Nothing goes wrong any more, and users want everything to go on."""
        self.refusals.share = 0.0
        for machine in self.machines:
            machine.refuses_starts = False
        self.clock.advance(2 * DAY_S)  # what a clock that jumped back left far in the future
        if not self.servers:
            self.boot()
        for job_id in self.jobs:
            with suppress(UserError):
                control.resume(self.store, job_id)
        self.say("healed")

    def is_settled(self) -> bool:
        return all(self.store.get_job(job_id)["status"] in FINAL for job_id in self.jobs)


def simulate(seed: int, folder: Path) -> World:
    """What the seed does; raises AssertionError, with the story, where the history breaks a rule."""
    with own_home(folder):
        return _simulate(World(seed, folder), seed)


@contextmanager
def own_home(folder: Path) -> Iterator[None]:
    """The folder as AGENTRFT_HOME: a cancelled job leaves its result file there."""
    before = os.environ.get("AGENTRFT_HOME")
    os.environ["AGENTRFT_HOME"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("AGENTRFT_HOME")
        if before is not None:
            os.environ["AGENTRFT_HOME"] = before


def _simulate(world: World, seed: int) -> World:
    world.create()
    for _ in range(STORM_PASSES):
        world.storm()
        world.go()
    world.heal()
    for _ in range(CALM_PASSES):
        if world.is_settled():
            break
        world.go()
    try:
        check(world)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}\n" + "\n".join(world.told)) from error
    finally:
        world.store.close()
    return world


def check(world: World) -> None:
    """Raise AssertionError where a rule of the history is broken."""
    for job_id in world.jobs:
        job = world.store.get_job(job_id)
        expected = "cancelled" if job_id in world.cancelled else "succeeded"
        assert job["status"] == expected, f"{job_id} is {job['status']}, expected {expected}: {job}"
        if expected == "succeeded":
            assert job["fine_tuned_model"] == final_weights(STEPS), f"{job_id} has other weights"
        check_chain(world, job_id, job["status"])
        check_writes(world, job_id)
    assert not world.cancelled - set(world.jobs)


def check_chain(world: World, job_id: str, status: str) -> None:
    events = world.store.list_events(job_id)
    changes = [event["data"] for event in events if event["message"].startswith("Job is now")]
    begin = events[0]["data"]["status"]
    chain = [begin, *(change["status"] for change in changes)]
    assert [change["from"] for change in changes] == chain[:-1], f"{job_id}: events do not follow one another"
    assert all(after in FOLLOWS[before] for before, after in itertools.pairwise(chain)), f"{job_id}: {chain}"
    assert chain[-1] == status
    assert sum(one in FINAL for one in chain) <= 1


def check_writes(world: World, job_id: str) -> None:
    commits = [(token, step) for job, token, step in world.disk.commits if job == job_id]
    assert [token for token, _ in commits] == sorted(token for token, _ in commits), f"{job_id}: a stale write was kept"
    begun = [(token, after, listed) for job, token, after, listed in world.disk.begun if job == job_id]
    for token, after, listed in begun:
        assert after >= listed or job_id in world.damaged, f"{job_id}: token {token} began after {after}, not {listed}"
    for token in {token for token, _ in commits}:
        steps = [step for one, step in commits if one == token]
        starts = [after + 1 for one, after, _ in begun if one == token]
        for before, step in itertools.pairwise([0, *steps]):
            assert step == before + 1 or step in starts, f"{job_id}: under token {token} step {before} then {step}"


@contextmanager
def ram_folder() -> Iterator[Path]:
    """A folder that costs no disk writes, where the machine has one."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="agentrft-sim-", dir=shm if shm.is_dir() else None) as folder:
        yield Path(folder)


def simulate_all(seeds: range) -> int:
    """Run the seeds, each in a copy of one empty store; returns how many workers there were in all."""
    with ram_folder() as folder:
        open_store(folder / "empty").close()
        workers = 0
        for seed in seeds:
            shutil.copytree(folder / "empty", folder / "home")
            world = simulate(seed, folder / "home")
            workers += sum(len(machine.processes) for machine in world.machines)
            shutil.rmtree(folder / "home")
    return workers


if __name__ == "__main__":
    for given in sys.argv[1:]:
        with ram_folder() as own:
            sys.stdout.write("\n".join([*simulate(int(given), own).told, f"seed {given}: every rule holds", ""]))
