"""Edits in the user's own file: as it was written but for the change, and a patch that git applies."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from agentrft.optimise import Edit, edited
from agentrft.optimise.patch import edited_text, unified_diff

DAY = Edit(
    kind="tools",
    component="tool:find:day",
    adds=((("agent", "tool_docs", "find", "parameters", "day"), "The day: of # 3", "ISO date, e.g. 2025-03-14."),),
    why="find refused 3 calls whose `day` was written otherwise (such as a\nb)",
)
SAID = Edit(kind="prompt", component="system:x", adds=((("agent", "system"), "", "Check it: always."),), why="library")
LIMIT = Edit(
    kind="outputs", component="output:read", sets=((("agent", "outputs", "read", "max_tokens"), 4096),), why="w"
)
SWITCHES = Edit(
    kind="guards",
    component="guard:off:before",
    sets=((("guardrails", "tools", "off", "require_before"), ["on", "no", "login"]),),
    why="w",
)
DEMOS = Edit(
    kind="demos",
    component="demos",
    sets=((("agent", "demos"), "demos-1.jsonl"),),
    why="w",
    files={"demos-1.jsonl": '{"messages": [{"role": "user", "content": "a\u2028b\x85c"}]}\n'},
)
ALL = (DAY, SAID, LIMIT, SWITCHES, DEMOS)

PLAIN = "model: m\ndata: {}\nagent:\n  system: Be\n    good and\n    kind.\n  limits: {max_turns: 3}\n"
FILES = {
    "literal": "model: m\ndata: {}\nagent:\n  system: |\n    Be good.\n    Be kind.\n",
    "plain over lines": PLAIN,
    "quoted over lines": 'model: m\ndata: {}\nagent:\n  system: "Be\n    good \\u00e9"\n',
    "flow": "model: m\ndata: {train: a.jsonl}\nagent: {system: Be good., tools: [{type: python, target: 'a.py:f'}]}\n",
    "anchors": "model: m\ndata: {}\nx: &d {max_tokens: 9}\nagent:\n  outputs:\n    read: *d\n    w: {<<: *d}\n",
    "aliases": "model: m\ndata: {}\nagent:\n  outputs:\n    read: &o\n      max_tokens: 9\n    w: *o\n    v: *o\n",
    "comments": "# top\nmodel: m # one\ndata: {}\n\nagent:\n  # said\n  system: Be good. # always\n  # last\n\n# end\n",
    "four spaces": "model: m\ndata: {}\nagent:\n    tools:\n        -   type: python\n            target: a.py:f\n",
    "flush lists": "model: m\ndata: {}\nagent:\n  tools:\n  - type: python\n    target: a.py:f\n  system: 'It''s'\n",
    "markers, nulls": "---\nmodel: m\nsuffix: ~\ndata: {}\nagent: {}\n...\n",
    "long": f"model: m\ndata: {{}}\nagent:\n  system: {'word ' * 300}end\n",
    "no last line end": "model: m\ndata: {}\nagent:\n  system: Be good.",
    "nothing there": "model: m\ndata: {}\n",
}


def git_apply(folder: Path, text: str, edits: Sequence[Edit]) -> str:
    """The job file after `git apply` of the patch that the edits make."""
    after = edited_text(text, edits)
    (folder / "job.yaml").write_text(text)
    patch = unified_diff("job.yaml", text, after, [(f"h{n}", edit) for n, edit in enumerate(edits, 1)])
    (folder / "changes.patch").write_text(patch)
    subprocess.run(["git", "apply", "changes.patch"], cwd=folder, check=True, capture_output=True)
    assert (folder / "job.yaml").read_text() == after
    return after


@pytest.mark.parametrize("edits", [*((edit,) for edit in ALL), ALL], ids=[*(edit.component for edit in ALL), "all"])
@pytest.mark.parametrize("name", FILES)
def test_the_file_says_what_the_edits_mean(name: str, edits: tuple[Edit, ...], tmp_path: Path) -> None:
    after = git_apply(tmp_path, FILES[name], edits)
    assert yaml.safe_load(after) == edited(yaml.safe_load(FILES[name]), edits)
    if DEMOS in edits:
        assert (tmp_path / "demos-1.jsonl").read_text() == DEMOS.files["demos-1.jsonl"]


@pytest.mark.parametrize("name", FILES)
def test_other_lines_stay_as_they_are(name: str) -> None:
    added = edited_text(FILES[name], [SWITCHES]).splitlines()
    for line in FILES[name].splitlines():
        assert line in added


def test_json_stays_json() -> None:
    document = {"model": "m", "data": {}, "agent": {"system": "Sei gut – 日本"}}
    for text in (json.dumps(document, indent="\t", ensure_ascii=False), json.dumps(document, indent=2) + "\n"):
        after = edited_text(text, ALL)
        assert json.loads(after) == edited(document, ALL)
        assert after.splitlines()[:3] == text.splitlines()[:3]
        assert after.isascii() == text.isascii()
        labels = unified_diff("job.json", text, after, [("h1", LIMIT)])
        assert "@@ h1: w\n" in labels


def test_what_replaces_a_text_comes_before_what_is_added_to_it() -> None:
    rewrite = Edit(kind="prompt", component="system", sets=((("agent", "system"), "Be quick."),), why="w")
    for edits in ([SAID, rewrite], [rewrite, SAID]):
        assert edited({}, edits)["agent"]["system"] == "Be quick. Check it: always."
        assert yaml.safe_load(edited_text(PLAIN, edits))["agent"]["system"] == "Be quick. Check it: always."
