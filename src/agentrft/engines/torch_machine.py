"""What torch sees of this machine; for `agentrft doctor` and reports."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from agentrft.engines.torch_model import bfloat16_speedup


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchMachine:
    device: str
    """`cpu`, `mps`, or `cuda` with the card's name: what `device: auto` uses."""
    cpu_capability: str
    """Vector instructions that torch's own kernels use, for example `AVX2`."""
    threads: int
    bfloat16_speedup: float
    """float32 time ÷ bfloat16 time of one matrix product, measured now."""


def examine_torch() -> TorchMachine:
    """Look at the device and time one matrix product in each dtype (a tenth of a second)."""
    if torch.cuda.is_available():
        device, name = torch.device("cuda"), f"cuda ({torch.cuda.get_device_name()})"
    elif torch.backends.mps.is_available():
        device, name = torch.device("mps"), "mps"
    else:
        device, name = torch.device("cpu"), "cpu"
    return TorchMachine(
        device=name,
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        bfloat16_speedup=bfloat16_speedup(device),
    )
