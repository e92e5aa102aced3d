"""A planted fault is found, mended and confirmed, without a language model; the patch is what a person would write."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from agentrft.ladder.optimise import CHANGES, PATCH, optimisation_job, optimise_job
from agentrft.optimise import OptimisePlan
from agentrft.store import open_store

PLAN = OptimisePlan(budget=1200)


@dataclass(frozen=True)
class Found:
    report: dict[str, Any]
    patch: str
    adopted: set[tuple[str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))


async def run(worlds: SimpleNamespace, task: Any, policy: Any) -> Found:
    """Optimise, and what was found: the report, the patch, and (place, value) of everything adopted."""
    with closing(open_store()) as store:
        job = optimisation_job(store, task, PLAN, "scripted")
        tools = await worlds.tools_of(task)
        report = await optimise_job(store, job, task, PLAN, worlds.agents(task, policy), tools)
        assert store.get_job(job.id)["status"] == "succeeded"
        assert store.get_job(job.id)["optimisation"]["report"] == report
        # The evidence can be looked up.
        assert all(store.get_episode(id_) for hunk in report["hunks"] for id_ in hunk["evidence"])
    hunks = json.loads((job.folder / CHANGES).read_text())["hunks"]
    sets = {(".".join(place), json.dumps(value)) for hunk in hunks for place, value in hunk["sets"]}
    adds = {(".".join(place), sentence) for hunk in hunks for place, _, sentence in hunk["adds"]}
    return Found(report=report, patch=(job.folder / PATCH).read_text(), adopted=sets | adds)


async def test_a_hidden_date_format(worlds: SimpleNamespace, tmp_path: Path) -> None:
    task = worlds.make_task(tmp_path, worlds.DATES, ["orders"], worlds.date_row)
    found = await run(worlds, task, worlds.date_policy)
    assert found.report["verdict"] == "adopted"
    # One try in five is ISO and there are two: 1 − 0.8² = 0.36; told, 0.96 each time: about 1.
    gain = found.report["confirmation"]["gain"]
    assert 0.45 < gain["mean"] < 0.8
    assert gain["low"] > 0.3
    (change,) = found.adopted
    assert change[0] == "agent.tool_docs.orders.parameters.day"
    assert change[1].startswith("ISO date, e.g. 20")
    assert "+        day: ISO date, e.g. 20" in found.patch
    assert "@@ h1: orders refused" in found.patch
    assert not [line for line in found.patch.splitlines() if line.startswith("-") and not line.startswith("---")]


async def test_a_limit_that_cuts_the_value_off(worlds: SimpleNamespace, tmp_path: Path) -> None:
    limits = {"tool_output_tokens": 100}
    task = worlds.make_task(tmp_path, worlds.PAGES, ["page"], worlds.page_row, limits=limits)
    found = await run(worlds, task, worlds.page_policy)
    assert ("agent.outputs.page.max_tokens", "1600") in found.adopted
    document = yaml.safe_load((tmp_path / "job.yaml").read_text())
    assert document["agent"]["limits"] == limits  # the file itself is left alone


async def test_a_missing_precondition(worlds: SimpleNamespace, tmp_path: Path) -> None:
    task = worlds.make_task(tmp_path, worlds.SHOP, ["Shop"], worlds.shop_row)
    found = await run(worlds, task, worlds.shop_policy)
    told = ("agent.tool_docs.balance.description", "Call `login` first.")
    held = ("guardrails.tools.balance.require_before", '["login"]')
    assert {told, held} & found.adopted


async def test_a_harmful_tool(worlds: SimpleNamespace, tmp_path: Path) -> None:
    names = ["lookup", "quick_lookup", "weather"]
    task = worlds.make_task(tmp_path, worlds.LOOKUPS, names, worlds.page_row)
    found = await run(worlds, task, worlds.lookup_policy)
    assert ("agent.tool_docs.quick_lookup.hidden", "true") in found.adopted
    assert ("agent.tool_docs.lookup.hidden", "true") not in found.adopted
