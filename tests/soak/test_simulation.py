"""The orchestration under faults, replayable by seed: `python tests/soak/simulation.py SEED`."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import simulation

SEEDS = 1000
PROCESSES = 2


def test_fifty_seeds() -> None:
    assert simulation.simulate_all(range(50)) > 100


def test_a_seed_is_replayed_to_the_letter(tmp_path: Path) -> None:
    first, second = (simulation.simulate(7, tmp_path / name) for name in ("one", "two"))
    assert first.told == second.told
    assert first.disk.commits == second.disk.commits


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_thousand_seeds() -> None:
    share = SEEDS // PROCESSES
    shares = [range(start, start + share) for start in range(0, SEEDS, share)]
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        workers = sum(pool.map(simulation.simulate_all, shares))
    assert workers > 2 * SEEDS
