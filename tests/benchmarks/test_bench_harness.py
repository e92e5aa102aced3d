"""The parts the benchmarks share: their arithmetic, their JSON, and processes that answer over a pipe."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness.flops import Group, Shape, flop_ratio, training_flops
from harness.prompts import grouped_prompts, hash_reward, repeated, text_prompts, token_prompts
from harness.result import Case, Result, deliver
from harness.trl_sweep import Sizes, Tried, fastest, splits, variations
from harness.worker import Worker, WorkerError, WorkerTimeout, interleaved

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = (
    "environments",
    "rft_step",
    "decode",
    "prefix_tree",
    "learning",
    "exactness_cost",
    "warmup",
    "tool_latency",
    "hacking",
    "server",
)

ECHO = """
import os, sys, time
from harness.pipe import Pipe, serve
pipe = Pipe()
print("a stray print must not reach the line")
pipe.reply({"ready": True})
def step(request):
    time.sleep(request.get("sleep", 0))
    return {"pid": os.getpid(), "step_s": 0.0}
def fail(request):
    raise ValueError("no such thing")
def die(request):
    sys.stderr.write("last words\\n")
    os._exit(7)
serve({"step": step, "fail": fail, "die": die}, pipe)
"""


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "echo_worker.py").write_text(ECHO)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_worker_answers_and_reports_memory(echo: Path) -> None:
    with Worker("echo_worker", log=echo / "log") as worker:
        assert worker.ready().data["ready"] is True
        answer = worker.ask("step", sleep=0.05)
        assert answer.wall_s >= 0.05
        assert answer.data["peak_rss_bytes"] > 1_000_000
        assert answer.data["cpu_s"] > 0
    assert "stray print" in (echo / "log").read_text()


def test_worker_failures_are_told_apart(echo: Path) -> None:
    with Worker("echo_worker", log=echo / "log") as worker:
        worker.ready()
        with pytest.raises(WorkerError, match="ValueError: no such thing"):
            worker.ask("fail")
        with pytest.raises(WorkerTimeout, match="within 0 s"):
            worker.ask("step", timeout_s=0.1, sleep=60)
    with Worker("echo_worker", log=echo / "log") as worker:
        worker.ready()
        with pytest.raises(WorkerError, match=r"(?s)last words.*exit code 7"):
            worker.ask("die")


def test_interleaved_warms_up_and_takes_turns(echo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Worker("echo_worker", log=echo / "a") as a, Worker("echo_worker", log=echo / "b") as b:
        a.ready()
        b.ready()
        first, second = interleaved(a, b, 2, labels=("A", "B"))
    assert [len(first), len(second)] == [2, 2]
    assert first[0].data["pid"] == first[1].data["pid"] != second[0].data["pid"]
    assert "pair 2: A" in capsys.readouterr().out


def test_prompts_are_the_same_for_everyone_and_new_with_a_new_seed() -> None:
    prompts = token_prompts(2, 5, vocabulary=49152)
    assert prompts == token_prompts(2, 5, vocabulary=49152)
    assert [len(prompt) for prompt in prompts] == [5, 5]
    request = {"sequences": 16, "share": 8, "prompt": 3, "seed": 1}
    grouped = grouped_prompts(request, vocabulary=2000)
    assert len(grouped) == 2
    assert repeated(grouped, 16) == [grouped[0]] * 8 + [grouped[1]] * 8
    assert grouped != grouped_prompts({**request, "seed": 2}, vocabulary=2000)
    # One sequence with 8 to a prompt is still one prompt.
    assert len(grouped_prompts({**request, "sequences": 1}, vocabulary=2000)) == 1


class Words:
    """A tokenizer of whole words: id 1000 + k is ' ' and k spelt with letters."""

    def decode(self, token_ids: list[int]) -> str:
        return "".join(" abc" + "".join(chr(ord("a") + int(digit)) for digit in str(i)) for i in token_ids)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [int("".join(str(ord(c) - ord("a")) for c in word[3:])) for word in text.split()]


class Merging(Words):
    """One that reads two words as one id."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return super().encode(text, add_special_tokens=add_special_tokens)[::2]


def test_text_prompts_encode_to_the_length_asked_for() -> None:
    texts = text_prompts(3, 7, Words(), vocabulary=1200)
    assert len(set(texts)) == 3
    assert [len(Words().encode(text, add_special_tokens=False)) for text in texts] == [7, 7, 7]
    with pytest.raises(ValueError, match="encodes to 4 ids, expected 7"):
        text_prompts(1, 7, Merging(), vocabulary=1200)


def test_hash_reward_spreads_over_the_unit_interval() -> None:
    rewards = [hash_reward([n, n + 1]) for n in range(100)]
    assert len(set(rewards)) == 100
    assert min(rewards) < 0.1 < 0.9 < max(rewards) < 1


def test_flop_ratio_by_hand() -> None:
    # P = 2, S = 1, G = 2: padded 2 x 3 = 6 tokens, packed 2 + 2 x 1 = 4. Pairs: padded 2 x (1 + 2 + 3) = 12,
    # packed 3 + 2 x (2 + 1) = 9. Head: 2 positions in both.
    group = Group(prompt=2, suffix=1, members=2)
    assert (group.row_tokens, group.unique_tokens) == (6, 4)
    assert (group.row_pairs, group.shared_pairs) == (12, 9)
    shape = Shape(linear_weights=10, attention_width=1, layers=1, head_weights=5)
    # Linear 4 FLOPs a weight and token, attention 14 a width and pair, head 4 a weight and position.
    assert training_flops(shape, group, packed=False) == 4 * 10 * 6 + 14 * 12 + 4 * 5 * 2
    assert training_flops(shape, group, packed=True) == 4 * 10 * 4 + 14 * 9 + 4 * 5 * 2
    # Linear alone is sigma = G (P + S) / (P + G S): 1.78 at (200, 200, 8).
    linear = Shape(linear_weights=1, attention_width=0, layers=0, head_weights=0)
    assert flop_ratio(linear, Group(prompt=200, suffix=200, members=8)) == pytest.approx(3200 / 1800)


def result() -> Result:
    return Result(
        title="a benchmark",
        peer="them",
        cases=[
            Case(name="rate", unit="tokens/s", ours=300.0, peer=100.0, better="higher"),
            Case(name="time", unit="s", ours=1.0, peer=2.0, better="lower"),
            Case(name="memory", unit="MiB", ours=4.0, peer=1.0, better="lower", gated=False),
        ],
        checks={"twice as fast": True, "ten times as fast": False},
    )


def test_json_has_the_agreed_shape_and_the_smallest_gated_speedup(tmp_path: Path) -> None:
    deliver(result(), tmp_path / "deep" / "out.json")
    written = json.loads((tmp_path / "deep" / "out.json").read_text())
    assert written["cases"][0] == {"name": "rate", "unit": "tokens/s", "ours": 300.0, "peer": 100.0, "speedup": 3.0}
    assert [case["speedup"] for case in written["cases"]] == [3.0, 2.0, 0.25]
    assert written["speedup"] == 2.0
    assert written["machine"]["cores"] >= 1


def test_table_shows_units_and_missed_checks(capsys: pytest.CaptureFixture[str]) -> None:
    deliver(result(), None)
    out = capsys.readouterr().out
    assert "time *" in out
    assert "memory " in out
    assert "overall: 2.00x" in out
    assert "MISSED   ten times as fast" in out


def test_sweep_splits_keep_all_rows_and_variations_change_one_thing() -> None:
    sizes = Sizes(items=8, members=8)
    assert [config["per_device_train_batch_size"] for _, config in splits(sizes)] == [64, 32, 16, 8, 4]
    best = {"per_device_train_batch_size": 8}
    names = dict(variations(best, sizes))
    assert names["generate in 2 parts"] == {**best, "steps_per_generation": 4}
    assert names["bf16 weights"] == {**best, "bf16": True, "model_dtype": "bfloat16"}
    assert all(config["per_device_train_batch_size"] == 8 for config in names.values())


def test_fastest_skips_what_did_not_work() -> None:
    slow = Tried(name="slow", config={}, step_s=2.0)
    quick = Tried(name="quick", config={}, step_s=1.0)
    broken = Tried(name="broken", config={}, step_s=None, problem="no")
    assert fastest([slow, quick, broken]) is quick
    with pytest.raises(WorkerError, match="broken: no"):
        fastest([broken])


def test_peer_pins_are_exact_and_leave_torch_to_the_script() -> None:
    environments = load("environments")
    for peer in environments.PEERS:
        lines = [line for line in environments.pins_of(peer).read_text().splitlines() if not line.startswith("#")]
        assert all("==" in line for line in lines)
        assert not any(line.startswith("torch==") for line in lines)
    with pytest.raises(ValueError, match="expected one of trl, vllm"):
        environments.pins_of("nobody")


def test_environment_is_current_only_with_the_pins_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments = load("environments")
    monkeypatch.setenv("AGENTRFT_BENCH_CACHE", str(tmp_path))
    assert [record["current"] for record in environments.show()] == [False, False]
    folder = tmp_path / "trl"
    folder.mkdir()
    pins = environments._digest(environments.pins_of("trl"))
    (folder / "agentrft-bench.json").write_text(json.dumps({"pins": pins, "install_s": 1.0, "bytes": 2**21}))
    assert environments.show()[0] == {
        "peer": "trl",
        "folder": str(folder),
        "current": True,
        "megabytes": 2,
        "install_s": 1.0,
    }
    assert environments.python_of("trl") == folder / "bin" / "python"
    (folder / "agentrft-bench.json").write_text(json.dumps({"pins": "older", "install_s": 1.0, "bytes": 1}))
    assert environments.show()[0]["current"] is False


def load(name: str) -> object:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_benchmark_says_how_to_run_it(script: str) -> None:
    assert f"python benchmarks/{script}.py" in (BENCHMARKS / f"{script}.py").read_text()
    if script != "environments":
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        shown = subprocess.run(
            [sys.executable, str(BENCHMARKS / f"{script}.py"), "--help"],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert shown.returncode == 0, shown.stderr
        assert "--json" in shown.stdout
