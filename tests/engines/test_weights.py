"""What we save, others load: adapters in plain PEFT, models in plain transformers. What does not fit is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engine_cases import (
    FAMILIES,
    finish_all,
    largest_gap,
    plain_peft,
    randomise_adapters,
    request,
    some_tokens,
    worst_gap,
)
from oracle import greedy, plain_model
from row_cases import group_rows
from safetensors.torch import load_file, save_file

from agentrft.engines.torch_engine import LoraSpec, TorchEngine
from agentrft.errors import StoreFault, UserError
from agentrft.losses import SupervisedLoss
from agentrft.train.checkpoint import Checkpoints

LORA = LoraSpec(rank=4, alpha=8)
PROMPTS = [some_tokens(seed, 5 + 3 * seed) for seed in range(4)]
Load = Callable[..., TorchEngine]


async def train(engine: TorchEngine, steps: int = 2) -> None:
    for seed in range(steps):
        await engine.learner.forward_backward(group_rows(seed=seed), SupervisedLoss())
        await engine.learner.optim_step(3e-3)


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_trained_adapter_answers_alike_in_plain_peft(
    family: str, load: Load, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    engine = load(family, lora=LORA)
    await train(engine)
    await engine.learner.save(tmp_path)
    reference = plain_peft(tiny(family), tmp_path)
    base = plain_model(tiny(family))

    replies = await finish_all(engine.generator, [request(p, n=16, stop=[2], temperature=0.0) for p in PROMPTS])
    assert [r.tokens for r in replies] == [greedy(reference, p, 16) for p in PROMPTS]
    assert [r.tokens for r in replies] != [greedy(base, p, 16) for p in PROMPTS]
    assert worst_gap(replies, reference) < 1e-5
    rows = group_rows(seed=9)
    exact = reference.double()  # in float32 it rounds as much as ours does
    assert largest_gap(await engine.learner.log_probs(rows), rows, exact) < 1e-5


async def test_the_adapters_config_is_pefts_own(load: Load, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    engine = load("llama", lora=LoraSpec(rank=3, alpha=5.0))
    await engine.learner.save(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (3, 5.0, "LORA")
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert config["base_model_name_or_path"] == str(tiny("llama"))
    names = load_file(tmp_path / "adapter_model.safetensors").keys()
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in names
    assert len(names) == 3 * 7 * 2  # layers × linear layers × (A, B)


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_trained_model_answers_alike_in_plain_transformers(family: str, load: Load, tmp_path: Path) -> None:
    engine = load(family)
    await train(engine)
    await engine.learner.save(tmp_path)
    reference = plain_model(tmp_path)
    replies = await finish_all(engine.generator, [request(p, n=16, stop=[2], temperature=0.0) for p in PROMPTS])
    assert [r.tokens for r in replies] == [greedy(reference, p, 16) for p in PROMPTS]
    assert worst_gap(replies, reference) < 1e-5


async def test_an_adapter_made_by_peft_loads(load: Load, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    import peft

    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    theirs = peft.get_peft_model(plain_model(tiny("qwen3")), config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.05)
    theirs.save_pretrained(tmp_path)
    engine = load("qwen3", lora=LORA)
    await engine.learner.load_weights(tmp_path)
    rows = group_rows(seed=1)
    assert largest_gap(await engine.learner.log_probs(rows), rows, theirs.eval()) < 1e-5
    assert engine.learner.policy_version == 0


async def test_the_same_seed_starts_the_same_adapter(load: Load) -> None:
    first, same, other = (load("llama", lora=LORA, seed=seed).model.parameters() for seed in (1, 1, 2))
    name = "model.layers.0.self_attn.q_proj.lora_A.weight"
    assert torch.equal(first[name], same[name])
    assert not torch.equal(first[name], other[name])


# ---- refusals


async def refusal_of(engine: TorchEngine, folder: Path) -> str:
    """The message of the UserError that both ways of loading give; the weights must be as they were."""
    before = {name: value.clone() for name, value in engine.model.parameters().items()}
    version = engine.learner.policy_version
    with pytest.raises(UserError) as refused:
        await engine.learner.load(folder)
    assert (refused.value.code, refused.value.param) == ("checkpoint_mismatch", "model")
    assert all(torch.equal(before[name], value) for name, value in engine.model.parameters().items())
    assert engine.learner.policy_version == version
    return refused.value.message


async def test_weights_that_do_not_fit_are_refused(load: Load, tmp_path: Path) -> None:
    saved = {"lora": load("llama", lora=LORA), "full": load("llama")}
    for name, engine in saved.items():
        (tmp_path / name).mkdir()
        await engine.learner.save(tmp_path / name)
    wrong_rank, wrong_family = load("llama", lora=LoraSpec(rank=8, alpha=8)), load("phi3", lora=LORA)
    randomise_adapters(wrong_rank)

    message = await refusal_of(wrong_rank, tmp_path / "lora")
    assert "0 tensors missing [], 0 unknown [], 42 of another shape" in message
    assert "use the base model and LoRA rank it was made with" in message
    message = await refusal_of(wrong_family, tmp_path / "lora")
    assert "model.layers.0.mlp.gate_up_proj.lora_A.weight" in message
    assert "model.layers.0.mlp.gate_proj.lora_A.weight" in message
    message = await refusal_of(saved["full"], tmp_path / "lora")
    assert "has no model.safetensors: expected a checkpoint of the same kind as this run (full weights)" in message
    message = await refusal_of(saved["lora"], tmp_path / "full")
    assert "has no adapter_model.safetensors: expected a checkpoint of the same kind" in message
    message = await refusal_of(saved["lora"], tmp_path)
    assert "has no adapter_model.safetensors" in message


async def test_a_checkpoint_without_its_optimiser_is_refused(load: Load, tmp_path: Path) -> None:
    engine = load("llama", lora=LORA)
    await engine.learner.save(tmp_path)
    (tmp_path / "optimizer.safetensors").unlink()
    assert "has no optimizer.safetensors" in await refusal_of(engine, tmp_path)
    await engine.learner.load_weights(tmp_path)  # the weights alone are a fine start


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.safetensors"])
async def test_a_damaged_checkpoint_is_refused(name: str, load: Load, tmp_path: Path) -> None:
    engine = load("llama", lora=LORA)
    await train(engine)
    await engine.learner.save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert f"{name} is damaged" in await refusal_of(engine, tmp_path)


async def test_steps_without_a_gradient_are_counted_in_a_checkpoint(load: Load, tmp_path: Path) -> None:
    engine = load("llama", lora=LORA)
    await engine.learner.optim_step(1e-3)
    assert engine.learner.policy_version == 1
    await engine.learner.save(tmp_path)
    other = load("llama", lora=LORA)
    await other.learner.load(tmp_path)
    assert other.learner.policy_version == 1


async def test_no_pickle_is_read(load: Load, tmp_path: Path) -> None:
    engine = load("llama", lora=LORA)
    await engine.learner.save(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    torch.save(tensors, tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_model.safetensors").unlink()
    assert "has no adapter_model.safetensors" in await refusal_of(engine, tmp_path)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    await engine.learner.load(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on file sizes to stand for a full disk")
async def test_a_disk_that_refuses_is_a_fault_of_the_store(load: Load, tmp_path: Path) -> None:
    import resource

    engine = load("llama", lora=LORA)
    await train(engine)
    checkpoints = Checkpoints(tmp_path, keep=3)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most))
    try:
        with pytest.raises(StoreFault, match=r"could not save .*free disk space, then resume the job"):
            await checkpoints.save(engine.learner, 1, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert [*checkpoints.folder.iterdir()] == []
    assert (await checkpoints.save(engine.learner, 1, {})).step == 1
