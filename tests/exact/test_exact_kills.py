"""Exact mode end to end: the same bits over random tool delays, and over kill -9 at random moments."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("exact_worker.py")
RUNS = 5
KILLS = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random-weight model with one id per character of CharFormat."""
    torch = pytest.importorskip("torch")
    import transformers

    from agentrft.testing import CharFormat

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(
        **sizes,
        num_key_value_heads=2,
        vocab_size=CharFormat.vocabulary,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=0,
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("model")
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def start(model: Path, folder: Path, dtype: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), str(model), str(folder), dtype]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> Any:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tool_delays_do_not_reach_the_weights(model: Path, tmp_path: Path, dtype: str) -> None:
    runs = [finish(start(model, tmp_path / str(n), dtype)) for n in range(RUNS)]
    rewards = [metrics["reward_mean"] for _, metrics in runs[0]["metrics"] if "reward_mean" in metrics]
    assert len(set(rewards)) > 1, "nothing varied, so nothing was tested"
    assert all(run == runs[0] for run in runs)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kills_do_not_reach_the_weights(model: Path, tmp_path: Path, dtype: str) -> None:
    with start(model, tmp_path / "calm", dtype) as calm:
        assert calm.stdout
        assert calm.stdout.readline() == "ready\n"
        began = time.monotonic()
        expected = finish(calm)
        training_s = time.monotonic() - began
    rng, kills = random.Random(0), 0
    while kills < KILLS:
        with start(model, tmp_path / "killed", dtype) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.0, training_s / 16))
            if process.poll() is not None:  # done before the next kill
                break
            process.kill()
        kills += 1
    assert kills >= KILLS // 2, "give the worker more steps"
    assert finish(start(model, tmp_path / "killed", dtype)) == expected
