"""Adapters on disk: PEFT's and our learner's are served, anything that means more is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_cases import finish, finish_all, mixed_requests, randomise_adapters, request
from safetensors.torch import load_file, save_file

from agentrft.engines.torch_engine import LoraSpec, TorchEngine
from agentrft.engines.torch_serving import ServingEngine
from agentrft.errors import UserError

Serve = Callable[..., ServingEngine]


# ---- what is refused


async def test_what_is_no_plain_lora_is_refused_by_name(
    serving: Serve, adapters: Callable[[str], list[Path]], tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    generator = serving().generator
    folder = adapters("llama")[0]
    config = json.loads((folder / "adapter_config.json").read_text())

    async def refusal(**changes: Any) -> str:
        (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(UserError) as refused:
            await generator.add_adapter("x", folder)
        assert refused.value.code == "checkpoint_mismatch"
        return refused.value.message

    assert "use_dora = True" in await refusal(use_dora=True)
    assert "bias = 'all'" in await refusal(bias="all")
    assert "modules_to_save" in await refusal(modules_to_save=["lm_head"])
    assert "kind 'IA3'" in await refusal(peft_type="IA3")
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        await generator.add_adapter("x", folder)
    with pytest.raises(UserError, match="no adapter_config"):
        await generator.add_adapter("x", tmp_path)


async def test_tensors_of_another_model_are_refused(serving: Serve, adapters: Callable[[str], list[Path]]) -> None:
    generator = serving().generator
    folder = adapters("llama")[0]
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    key = next(key for key in tensors if key.endswith("lora_B.weight"))

    async def refusal(changed: dict[str, torch.Tensor]) -> str:
        save_file(changed, path)
        with pytest.raises(UserError) as refused:
            await generator.add_adapter("x", folder)
        return refused.value.message

    assert "expected A [r, " in await refusal({**tensors, key: torch.zeros(3, 8)})
    assert "no numbers" in await refusal({**tensors, key: tensors[key] * float("nan")})
    assert "'base_model.model.x'" in await refusal({**tensors, "base_model.model.x": torch.zeros(1)})
    deeper = key.replace("layers.0", "layers.7")
    assert "layers.7" in await refusal({**tensors, deeper: tensors[key].clone()})
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match="damaged"):
        await generator.add_adapter("x", folder)


async def test_an_engine_that_trains_takes_no_adapters(
    tiny: Callable[[str], Path], load: Callable[..., TorchEngine], tmp_path: Path
) -> None:
    generator = load("llama").generator
    with pytest.raises(UserError, match="takes no adapters"):
        await generator.add_adapter("x", tmp_path)
    with pytest.raises(UserError, match="no adapter is named"):
        await finish(generator, request([5], adapter="x"))


# ---- what our learner writes


async def test_what_our_learner_saves_is_served_as_it_was_trained(
    load: Callable[..., TorchEngine], serving: Serve, tmp_path: Path
) -> None:
    trainer = load("llama", lora=LoraSpec(rank=4, alpha=8))
    randomise_adapters(trainer)
    await trainer.learner.save(tmp_path)
    generator = serving().generator
    await generator.add_adapter("ours", tmp_path)
    wanted = mixed_requests(6)
    trained = await finish_all(trainer.generator, wanted)
    served = await finish_all(generator, [replace(one, adapter="ours") for one in wanted])
    assert [r.tokens for r in served] == [r.tokens for r in trained]


async def test_full_weights_are_a_model_of_their_own(
    load: Callable[..., TorchEngine], serving: Serve, tmp_path: Path
) -> None:
    trainer = load("llama")
    with torch.no_grad():
        for parameter in trainer.learner._masters.values():
            parameter.mul_(1.05)
    await trainer.learner.save(tmp_path)
    wanted = mixed_requests(6)
    trained = await finish_all(trainer.generator, wanted)
    assert [r.tokens for r in await finish_all(serving(trained=tmp_path).generator, wanted)] == [
        r.tokens for r in trained
    ]
    assert [r.tokens for r in await finish_all(serving().generator, wanted)] != [r.tokens for r in trained]
