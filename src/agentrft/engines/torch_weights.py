"""Weights on disk: adapters in PEFT's format, full models as transformers writes them, optimiser state beside them.

Only safetensors and JSON, never pickle.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from agentrft.engines.torch_model import TorchModel
from agentrft.errors import UserError

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
MODEL = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
PEFT_PREFIX = "base_model.model."
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def master_of(parameter: nn.Parameter) -> nn.Parameter:
    """The float32 parameter that the optimiser updates: the parameter itself, or a float32 copy of it."""
    if parameter.dtype == torch.float32:
        return parameter
    return nn.Parameter(parameter.detach().float())


def save(model: TorchModel, masters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Write the adapter (or all weights) and the optimiser's state into `folder`, which must exist."""
    save_weights(model, masters, folder)
    state: dict[str, Tensor] = {}
    for name, parameter in masters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"{key}/{name}"] = value.detach().cpu().contiguous()
    _write(state, folder / OPTIMIZER, {"policy_version": str(model.version)})


def save_weights(model: TorchModel, masters: dict[str, nn.Parameter], folder: Path) -> None:
    """Write only what a user loads elsewhere: a PEFT adapter, or a transformers model."""
    tensors = {name: master.detach().cpu().contiguous() for name, master in masters.items()}
    if model.lora is None:
        _write(tensors, folder / MODEL, {"format": "pt"})
        model.config.save_pretrained(folder)
        return
    _write({PEFT_PREFIX + name: value for name, value in tensors.items()}, folder / ADAPTER)
    config = peft_config(model)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def peft_config(model: TorchModel) -> dict[str, Any]:
    """The adapter_config.json that PEFT's own loader reads."""
    from peft import LoraConfig

    assert model.lora is not None
    targets = sorted({name.rsplit(".", 1)[-1] for name, _ in model.adapters()})
    config = LoraConfig(
        r=model.lora.rank,
        lora_alpha=model.lora.alpha,  # type: ignore[arg-type]  # PEFT multiplies; a float is as good
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=getattr(model.config, "_name_or_path", None),
        inference_mode=True,
    )
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}


def load_weights(model: TorchModel, masters: dict[str, nn.Parameter], folder: Path) -> None:
    """Read weights that `save_weights` (or PEFT) wrote into the masters; raises UserError when they do not fit."""
    path = _file(folder, MODEL if model.lora is None else ADAPTER, model)
    tensors = {name.removeprefix(PEFT_PREFIX): value for name, value in read_tensors(path)[0].items()}
    missing = sorted(masters.keys() - tensors.keys())
    extra = sorted(tensors.keys() - masters.keys())
    shapes = [n for n in masters.keys() & tensors.keys() if masters[n].shape != tensors[n].shape]
    if missing or extra or shapes:
        raise UserError(
            f"{path} does not fit this model: {len(missing)} tensors missing {missing[:2]}, {len(extra)} unknown "
            f"{extra[:2]}, {len(shapes)} of another shape {shapes[:2]}; use the base model and LoRA rank it was made "
            "with",
            param="model",
            code="checkpoint_mismatch",
        )
    with torch.no_grad():
        for name, master in masters.items():
            master.copy_(tensors[name])


def load(model: TorchModel, masters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Restore weights and optimiser state, bit for bit, and drop any gradient under way."""
    _file(folder, MODEL if model.lora is None else ADAPTER, model)
    state, notes = read_tensors(_file(folder, OPTIMIZER, model))
    load_weights(model, masters, folder)
    optimizer.zero_grad(set_to_none=True)
    optimizer.state.clear()
    for name, master in masters.items():
        found = {key: state[f"{key}/{name}"] for key in _MOMENTS if f"{key}/{name}" in state}
        if found:
            optimizer.state[master] = {
                key: value if key == "step" else value.to(master.device) for key, value in found.items()
            }
    model.version = int(notes["policy_version"])


def _file(folder: Path, name: str, model: TorchModel) -> Path:
    if not (folder / name).is_file():
        raise UserError(
            f"{folder} has no {name}: expected a checkpoint of the same kind as this run "
            f"({'full weights' if model.lora is None else 'LoRA adapter'}); point to a checkpoint folder",
            param="model",
            code="checkpoint_mismatch",
        )
    return folder / name


def _write(tensors: dict[str, Tensor], path: Path, notes: dict[str, str] | None = None) -> None:
    """Write a safetensors file; raises OSError when the disk refuses, which safetensors reports as its own kind."""
    try:
        save_file(tensors, path, metadata=notes)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and notes of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(
            f"{path} is damaged ({error}); expected a whole safetensors file, use another checkpoint",
            param="model",
            code="checkpoint_mismatch",
        ) from error
