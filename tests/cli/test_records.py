"""`jobs list`, `jobs show` and `show` over a store that was filled by hand; hostile text everywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrft.cli import main
from agentrft.protocols import EpisodeRecord
from agentrft.rollout.ids import EpisodeKey
from agentrft.store import open_store
from agentrft.types import Episode, Grade, Message, StopReason, ToolCall, ToolResult, Turn

HOSTILE = "\x1b[2J\x1b]0;owned\x07[red]boo[/red]"
JOB = "ftjob-aaaabbbbccccddddeeeeffff"


def episode(item: str) -> Episode:
    key = EpisodeKey(run=JOB, step=1, item=item, member=0)
    question = Message(role="user", content=f"Where is it? {HOSTILE}")
    call = ToolCall(id="call_0_0", name="look", arguments='{"word": "here"}')
    calling = Message(role="assistant", tool_calls=(call,))
    result = ToolResult(call_id=call.id, output=HOSTILE)
    answer = Message(role="assistant", content="there")
    told = Message(role="tool", content=HOSTILE, tool_call_id=call.id)
    return Episode(
        id=key.id,
        trace_id=key.trace_id,
        item_id=item,
        step=1,
        member=0,
        attempt=0,
        messages=(question, calling, told, answer),
        turns=(Turn(reply=calling, results=(result,)), Turn(reply=answer)),
        stop_reason=StopReason.ANSWERED,
    )


def peer(member: int, calls: str, earned: float) -> dict[str, object]:
    return {"member": member, "turn": 0, "calls": calls, "earned": earned}


CREDIT = {
    "reward": {"grade": 0.75, "calls": -0.15},
    "turns": [
        {
            "parts": {"trajectory": 0.5, "step": 0.25},
            "advantage": 1.2,
            "tokens": 6,
            "masked_frac": 0.5,
            "log_prob_change": 0.125,
            "peers": [peer(1, HOSTILE, 1.0), peer(2, "look {}", 0.0), peer(3, "look {}", 0.4)],
        },
        {"parts": {"trajectory": 0.5}, "advantage": 0.6, "tokens": 2, "masked_frac": 0.0, "peers": []},
    ],
}


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., tuple[int, str, str]]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path))
    store = open_store()
    store.create_job(
        {"id": JOB, "status": "queued", "kind": "reinforcement", "model": "m", "spec": {"model": "m"}, "base_dir": "/"}
    )
    store.add_event(JOB, f"careful {HOSTILE}", level="warn")
    store.add_metrics(JOB, 1, {"reward_mean": 0.25, "valid_reward_mean": 0.5, "success_rate": float("nan")})
    (tmp_path / "step-00000001").mkdir()
    store.add_checkpoint(JOB, 1, str(tmp_path / "step-00000001"), {})
    records = [
        EpisodeRecord(
            job_id=JOB,
            phase="train",
            stage="rft",
            episode=episode("one"),
            grade=Grade(value=0.75),
            reward=0.6,
            advantage=0.9,
            extra={"credit": CREDIT},
        ),
        EpisodeRecord(
            job_id=JOB,
            phase="train",
            stage="rft",
            episode=episode("two"),
            grade=Grade(value=None, reason=f"raised {HOSTILE}", traceback=f"Traceback {HOSTILE}"),
        ),
    ]
    store.add_episodes(JOB, records)
    store.close()

    def run(*args: str) -> tuple[int, str]:
        code, out, err = command_line(*args)
        assert "\x1b" not in out + err
        return code, out + err

    return run


def test_jobs_are_listed_within_80_columns(cli: Callable[..., tuple[int, str]]) -> None:
    code, text = cli("jobs", "list")
    assert code == 0
    assert "ftjob-aaaabbbbc" in text
    assert "queued" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_job_is_shown_by_the_beginning_of_its_id(cli: Callable[..., tuple[int, str]]) -> None:
    code, text = cli("jobs", "show", "aaaa")
    assert code == 0
    for word in ("0.250", "0.500", "/step-00000001", "careful", "[red]boo[/red]", episode("one").id[:15]):
        assert word in text


def test_an_episode_is_shown_with_its_reward(cli: Callable[..., tuple[int, str]]) -> None:
    code, text = cli("show", episode("one").id[:10])
    assert code == 0
    assert 'look(word="here")' in text
    assert "reward 0.60, 1 call" in text
    assert "grade 0.750" in text


def test_credit_stands_beside_each_call(cli: Callable[..., tuple[int, str]]) -> None:
    _, text = cli("show", episode("one").id)
    flat = " ".join(text.split())
    call, answer = flat.index('look(word="here")'), flat.index("there")
    first = "advantage +1.20 from credit +0.75 (trajectory +0.50, step +0.25); 6 tokens, 50% of them masked; the update"
    assert call < flat.index(first) < answer < flat.index("advantage +0.60 from credit +0.50 (trajectory +0.50)")
    # The two who did the same are one line, with their mean; what they called is the model's text.
    assert "2 others here: look {} → earned 0.20" in flat
    assert "1 other here: [red]boo[/red] → earned 1.00" in flat
    assert "reward: grade +0.750, calls -0.150" in flat


def test_an_episode_without_a_grade_says_why(cli: Callable[..., tuple[int, str]]) -> None:
    _, text = cli("show", episode("two").id)
    assert "no grade: raised" in text
    assert "Traceback" in text


@pytest.mark.parametrize(
    ("args", "word"), [(("show", "ep_ffff"), "none begins so"), (("jobs", "show", "zz"), "no job")]
)
def test_what_is_not_there_is_a_user_error(
    cli: Callable[..., tuple[int, str]], args: tuple[str, ...], word: str
) -> None:
    code, text = cli(*args)
    assert code == 2
    assert word in text


def test_an_empty_store_says_how_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(sys, "argv", ["agentrft", "jobs", "list"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert "agentrft quickstart" in capsys.readouterr().out
