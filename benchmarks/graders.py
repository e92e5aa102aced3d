"""Python grades a second in the jail with all layers on, beside a bare fork-and-wait of an equally warm interpreter.

    python benchmarks/graders.py --json graders.json      # 5 rounds of 200 grades for each import set, about a minute
    python benchmarks/graders.py --rounds 1 --grades 40   # try it out

The bare fork has imported the same modules, forks, leaves at once and waits: nothing is confined, run or answered. Ours
has a child that shuts itself in, compiles the grader, runs it on a reply of 2 kB and answers: one after another, and
once with 8 grades in one child. Both take turns within a round. One grade at a time; the parent's part (asyncio, JSON)
is in ours. On a second core it forks the next child and buries the last one meanwhile; `taskset -c 0` shows one core.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path

from agentrft.sandbox.process import ForkServer, Program
from harness.result import Case, Result, deliver, median, spread, warn_when_busy

GROUP = 8

TOKENS = """
import json, re
def grade(sample, item):
    found = re.search(r"\\{.*\\}", sample["output_text"], re.S)
    words = json.loads(found.group())["answer"].lower().split()
    wanted = item["reference"].lower().split()
    common = sum(min(words.count(word), wanted.count(word)) for word in set(words))
    return 2 * common / (len(words) + len(wanted))
"""
COUNTS = """
import numpy as np
from rapidfuzz import fuzz
def grade(sample, item):
    texts = [sample["output_text"], item["reference"]]
    a, b = (np.bincount(np.frombuffer(t.encode(), np.uint8), minlength=256).astype(float) for t in texts)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) * fuzz.ratio(*texts) / 100
"""
SETS = {
    "standard library": (TOKENS, ("json", "re")),
    "numpy and rapidfuzz": (COUNTS, ("numpy", "rapidfuzz")),
}
SAMPLE = {"output_text": "rain falls on an old stone roof " * 60 + '{"answer": "the capital of France is Paris"}'}
ITEM = {"reference": "Paris is the capital of France"}

BARE = """
import gc, importlib, os, sys, time
for name in sys.argv[1:]:
    importlib.import_module(name)
gc.collect(); gc.freeze()
for line in sys.stdin:
    started = time.perf_counter()
    for _ in range(int(line)):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    print(time.perf_counter() - started, flush=True)
"""


class BareFork:
    """A warm interpreter that forks and waits as often as it is told to."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        # What the sandbox's worker has imported as well, beside the grader's own modules.
        names = ["asyncio", "ctypes", "json", "socket", "selectors", "traceback", *modules]
        command = [sys.executable, "-c", BARE, *names]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seconds(3)

    def seconds(self, forks: int) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{forks}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


async def rates(source: str, modules: tuple[str, ...], rounds: int, grades: int) -> dict[str, list[float]]:
    """Per second: bare forks, grades in a fresh process each, grades in groups of 8; one value a round."""
    server, bare = ForkServer(), BareFork(modules)
    program = Program(source=source, function="grade", filename="grader.py", imports=modules)
    found: dict[str, list[float]] = {"bare": [], "fresh": [], "group": []}
    report = await server.report()
    print(f"layers: {', '.join(report.enforced)}", file=sys.stderr)
    await server.call(program, [SAMPLE, ITEM], timeout_s=60)
    for _ in range(rounds):
        found["bare"].append(grades / bare.seconds(grades))
        started = time.perf_counter()
        for _ in range(grades):
            await server.call(program, [SAMPLE, ITEM], timeout_s=60)
        found["fresh"].append(grades / (time.perf_counter() - started))
        started = time.perf_counter()
        for _ in range(grades // GROUP):
            await server.call_group(program, [[SAMPLE, ITEM]] * GROUP, timeout_s=60)
        found["group"].append(grades // GROUP * GROUP / (time.perf_counter() - started))
    await server.close()
    bare.close()
    return found


def summary(measured: dict[str, dict[str, list[float]]]) -> Result:
    """Medians over the rounds; each round's ratio decides the checks, because the machine's speed drifts."""
    cases: list[Case] = []
    checks: dict[str, bool] = {}
    for name, found in measured.items():
        bare, fresh, group = (median(found[key]) for key in ("bare", "fresh", "group"))
        cost = median([b / f for b, f in zip(found["bare"], found["fresh"], strict=True)])
        gain = median([g / f for g, f in zip(found["group"], found["fresh"], strict=True)])
        cases.append(Case(name=f"{name}: one each", unit="/s", ours=fresh, peer=bare, better="higher"))
        cases.append(
            Case(name=f"{name}: {GROUP} in one", unit="/s", ours=group, peer=bare, better="higher", gated=False)
        )
        checks[f"{name}: a fresh process costs at most 3 bare forks (is {cost:.2f})"] = cost <= 3
        checks[f"{name}: {GROUP} in one at least 5 times as fast as one each (is {gain:.2f})"] = gain >= 5
    details = {name: {key: spread(values) for key, values in found.items()} for name, found in measured.items()}
    return Result(title="Grades in the jail", peer="bare fork", cases=cases, details=details, checks=checks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--grades", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warn_when_busy()
    measured = {
        name: asyncio.run(rates(source, modules, options.rounds, options.grades))
        for name, (source, modules) in SETS.items()
    }
    deliver(summary(measured), options.json)


if __name__ == "__main__":
    main()
