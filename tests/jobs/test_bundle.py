"""The bundle: what changes its hash and what does not, and that it travels from the job to whoever plays the result."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentrft.cli import main
from agentrft.errors import UserError
from agentrft.jobs.bundle import bundle_hash, check_bundle
from agentrft.jobs.load import load_job, parse_job
from agentrft.jobs.models import CARD, find_weights
from agentrft.jobs.service import create_job
from agentrft.runtime.inprocess import run_job
from agentrft.runtime.training import Outcome
from agentrft.store import open_store
from agentrft.testing import ScriptedLearner
from agentrft.train.checkpoint import verified

MakeJob = Callable[..., Path]

FILES = {
    "tools.py": 'def look(word: str) -> str:\n    """Say what WORD means."""\n    return word\n',
    "server.py": "# an MCP server\n",
    "guards.py": "def approve(tool, arguments, item):\n    return True\n\nclass Watch:\n    pass\n",
    "plugin.py": "class Watch:\n    def before_call(self, tool, arguments, item):\n        return None\n",
    "train.jsonl": '{"messages": []}\n',
}
DOCUMENT: dict[str, Any] = {
    "model": "m",
    "seed": 3,
    "data": {"train": "train.jsonl"},
    "agent": {
        "system": "Look words up.",
        "tools": [
            {"type": "python", "target": "tools.py:look"},
            {"name": "find", "server_url": "http://127.0.0.1:8000/find", "headers": {"Authorization": "Bearer one"}},
            {"type": "mcp", "server_label": "notes", "command": ["python", "server.py"], "env": {"KEY": "one"}},
        ],
        "outputs": {"look": {"keep": "tail"}},
        "limits": {"max_turns": 4},
    },
    "guardrails": {
        "tools": {"look": {"effect": "read", "approval": "ask"}, "*": {}},
        "approver": "guards.py:approve",
        "plugins": ["plugin.py:Watch"],
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "job")


def written(folder: Path) -> Path:
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def hashed(folder: Path, **changes: Any) -> str:
    """The hash with fields replaced, by their dotted names: agent__system="x"; None removes one."""
    document = json.loads(json.dumps(DOCUMENT))
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        place = document
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return bundle_hash(parse_job(document), folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("agent__system", "Look words up!"),
        ("agent__system", None),
        ("agent__format", "hermes"),
        ("agent__tools__0__isolation", "inline"),
        ("agent__tools__1__server_url", "http://127.0.0.1:8000/found"),
        ("agent__tools__1__headers", {"X-Key": "one"}),
        ("agent__tools__1__description", None),
        ("agent__tools__2__sessions", "job"),
        ("agent__tools__2__env", {"OTHER": "one"}),
        ("agent__outputs", None),
        ("agent__outputs__look__keep", "head"),
        ("agent__limits__max_turns", 5),
        ("guardrails", None),
        ("guardrails__mode", "observe"),
        ("guardrails__tools__look__effect", "write"),
        ("guardrails__deny", ["find"]),
        ("guardrails__approver", "guards.py:Watch"),
        ("guardrails__plugins", []),
    ],
)
def test_what_decides_how_the_agent_behaves_changes_it(folder: Path, field: str, value: Any) -> None:
    if field.endswith("description"):
        before = hashed(folder, agent__tools__1__parameters={"type": "object"})
        described = {"agent__tools__1__parameters": {"type": "object"}, field: "Find."}
        assert hashed(folder, **described) != before
        return
    assert hashed(folder, **{field: value}) != hashed(folder)


@pytest.mark.parametrize("name", ["tools.py", "server.py", "guards.py", "plugin.py"])
def test_the_files_that_are_named_change_it(folder: Path, name: str) -> None:
    before = hashed(folder)
    (folder / name).write_text(FILES[name] + "# another line\n")
    changed = hashed(folder)
    (folder / name).unlink()
    assert len({before, changed, hashed(folder)}) == 3


def test_secrets_places_and_the_rest_of_the_job_do_not(folder: Path, tmp_path: Path) -> None:
    before = hashed(folder)
    assert len(before) == 64
    others = {
        "header": hashed(folder, agent__tools__1__headers={"Authorization": "Bearer two"}),
        "environment": hashed(folder, agent__tools__2__env={"KEY": "two"}),
        "place": hashed(written(tmp_path / "elsewhere")),
        "seed": hashed(folder, seed=4),
        "model": hashed(folder, model="n"),
        "training": hashed(folder, training={"steps": 2, "lora": None}),
        "a default": hashed(folder, agent__limits={"max_turns": 4, "tool_timeout_s": 30.0}),
    }
    assert [name for name, one in others.items() if one != before] == []


def test_neither_the_order_of_keys_nor_files_that_are_not_named_do(folder: Path) -> None:
    before = hashed(folder)
    document = {key: DOCUMENT[key] for key in reversed(DOCUMENT)}
    document["agent"] = {key: DOCUMENT["agent"][key] for key in reversed(DOCUMENT["agent"])}
    (folder / "train.jsonl").write_text('{"messages": [], "more": 1}\n')
    (folder / "notes.py").write_text("x = 1\n")
    os.utime(folder / "tools.py", (0, 0))
    assert bundle_hash(parse_job(document), folder) == before


def test_the_order_of_rules_does(folder: Path) -> None:
    # Where several globs match, the later one wins field by field.
    rules = {"look": {"effect": "read"}, "*": {"effect": "write"}}
    turned = dict(reversed(rules.items()))
    assert hashed(folder, guardrails__tools=rules) != hashed(folder, guardrails__tools=turned)


def test_the_order_of_arguments_does(folder: Path) -> None:
    # The line format writes arguments by position.
    names = {"a": {"type": "string"}, "b": {"type": "string"}}
    one, other = ({"type": "object", "properties": dict(order)} for order in (names.items(), reversed(names.items())))
    assert hashed(folder, agent__tools__1__parameters=one) != hashed(folder, agent__tools__1__parameters=other)


def test_a_program_is_found_where_it_runs(folder: Path) -> None:
    (folder / "servers").mkdir()
    (folder / "servers" / "own.py").write_text("x = 1\n")
    runs_there = {"agent__tools__2__cwd": "servers", "agent__tools__2__command": ["python", "own.py"]}
    before = hashed(folder, **runs_there)
    (folder / "servers" / "own.py").write_text("x = 2\n")
    assert hashed(folder, **runs_there) != before


def test_another_bundle_is_refused_and_an_unknown_one_is_not(folder: Path) -> None:
    spec = parse_job(DOCUMENT)
    check_bundle(None, spec, folder, model="mine")
    check_bundle(bundle_hash(spec, folder), spec, folder, model="mine")
    with pytest.raises(UserError, match="mine was trained with another agent") as caught:
        check_bundle("0123456789abcdef" * 4, spec, folder, model="mine")
    assert (caught.value.param, caught.value.code) == ("agent", "bundle_changed")
    assert "bundle 0123456789ab, now " + bundle_hash(spec, folder)[:12] in caught.value.message
    assert "--force" in caught.value.message


# ---- from a job to its result, and to whoever plays that


class Adapter(ScriptedLearner):
    """Saves what a PEFT adapter consists of besides its own table."""

    async def save(self, folder: Path) -> None:
        await super().save(folder)
        (folder / "adapter_config.json").write_text(json.dumps({"r": 16, "lora_alpha": 32}))
        (folder / "adapter_model.safetensors").write_bytes(b"")


@dataclass(frozen=True)
class Engine:
    """An engine without a model."""

    learner: Adapter
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def generator(self) -> Any:
        return self.learner.generator

    async def close(self) -> None:
        """Nothing to let go."""


async def load_engine(spec: Any, weights: Any, training: bool) -> Any:
    return Engine(Adapter(range(400), order=1))


@pytest.fixture
def trained(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Outcome]:
    """A job file, and what came of running it."""
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))
    changes = {"method": {"type": "supervised"}, "guardrails": {"approver": "guards.py:approve"}}
    path = make_job(changes, guards__py=FILES["guards.py"])
    spec, base_dir = load_job(path)
    store = open_store()
    try:
        return path, asyncio.run(run_job(store, create_job(store, spec, base_dir), load=load_engine))
    finally:
        store.close()


def test_every_checkpoint_and_the_published_model_carry_it(trained: tuple[Path, Outcome]) -> None:
    path, outcome = trained
    assert outcome.model is not None
    now = bundle_hash(*load_job(path))
    folders = sorted((outcome.job.folder / "checkpoints").glob("step-*"))
    assert folders
    assert {checkpoint.bundle for folder in folders if (checkpoint := verified(folder))} == {now}
    weights = find_weights(outcome.model)
    assert weights.trained is not None
    assert json.loads((weights.trained / CARD).read_text())["bundle"] == now
    for name in (outcome.model, outcome.job.id, str(folders[0])):
        assert find_weights(name).bundle == now


ANOTHER_AGENT = "was trained with another agent"
CHANGES: dict[str, tuple[str, str, str, bool]] = {
    # file, old, new, whether that is another agent
    "nothing": ("job.yaml", "{", "{", False),
    "prompt": ("job.yaml", "Look words up.", "Look words up!", True),
    "guardrails": ("job.yaml", '"approver"', '"deny": ["x"], "approver"', True),
    "data": ("job.yaml", '"test": "test.jsonl",', "", False),
    "tool": ("tools.py", "Say what", "Tell what", True),
    "approver": ("guards.py", "True", "False", True),
}


def test_chat_refuses_a_model_under_another_bundle(
    trained: tuple[Path, Outcome], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, outcome = trained

    def chat(*args: str) -> str:
        """What it says; there is no such item, so it ends there, before a model is loaded."""
        monkeypatch.setattr(sys, "argv", ["agentrft", "chat", *args, "--job", str(path), "--item", "no-such-item"])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        said = " ".join(capsys.readouterr().err.split())
        assert ("no-such-item" in said) != (ANOTHER_AGENT in said)
        return said

    assert outcome.model is not None
    for name, (file, old, new, is_another) in CHANGES.items():
        target = path.with_name(file)
        before = target.read_text()
        assert old in before, name
        target.write_text(before.replace(old, new))
        for model in (outcome.model, outcome.job.id):
            assert (ANOTHER_AGENT in chat(model)) == is_another, name
            assert ANOTHER_AGENT not in chat(model, "--force"), name
        target.write_text(before)
    # The model itself has no bundle, nor has one that others trained.
    assert ANOTHER_AGENT not in chat(str(load_job(path)[0].model))


def test_the_same_job_in_another_place_is_the_same_agent(
    trained: tuple[Path, Outcome], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, outcome = trained
    elsewhere = tmp_path_factory.mktemp("moved") / "job"
    shutil.copytree(path.parent, elsewhere)
    assert outcome.model is not None
    spec, base_dir = load_job(elsewhere / "job.yaml")
    check_bundle(find_weights(outcome.model).bundle, spec, base_dir, model=outcome.model)
