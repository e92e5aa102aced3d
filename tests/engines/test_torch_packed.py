"""Packed products: torch's own numbers, and always those of the weight as it is now."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from agentrft.engines.torch_layers import LoraGroup, LoraLinear
from agentrft.engines.torch_packed import PackedLinear, few_shapes, is_packing_faster

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [1, 3, 64, 200])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_packed_product_is_the_plain_one(rows: int, has_bias: bool) -> None:
    x, weight, bias = random(rows, 48, seed=1), random(40, 48, seed=2), random(40, seed=3) if has_bias else None
    assert torch.allclose(PackedLinear(weight)(x, bias), linear(x, weight, bias), atol=1e-4)


def test_rows_are_rounded_up_to_few_numbers_of_them() -> None:
    assert [few_shapes(n) for n in (0, 1, 15, 16, 17, 50, 64, 65, 130, 260)] == [0, 1, 15, 16, 18, 52, 64, 72, 144, 288]
    rounded = [few_shapes(n) for n in range(1, 2049)]
    assert all(n <= more <= 1.125 * n for n, more in enumerate(rounded, start=1))
    assert len(set(rounded)) == 72  # eight for each doubling
    assert sum(rounded) / sum(range(1, 2049)) < 1.05


def test_a_weight_that_changed_in_place_is_packed_again() -> None:
    x, weight = random(5, 16, seed=1), random(8, 16, seed=2)
    packed = PackedLinear(weight)
    packed(x)
    weight.mul_(2.0)
    assert torch.allclose(packed(x), linear(x, weight), atol=1e-4)
    weight[:4].copy_(torch.zeros(4, 16))  # a part of it, through a view
    assert torch.allclose(packed(x), linear(x, weight), atol=1e-4)


def test_a_merged_adapter_reaches_packed_layers() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [
        LoraLinear(nn.Linear(16, n, bias=False), rank=2, alpha=4, dtype=torch.float32, generator=generator)
        for n in (8, 4)
    ]
    alone, x = parts[0], random(6, 16, seed=1)
    group = LoraGroup.of(*parts)
    assert group is not None
    group.pack()
    alone.packed = PackedLinear(alone.weight)
    with torch.no_grad():
        before = group(x)[:, :8]
        alone.lora_b.copy_(random(8, 2, seed=2))
        alone.merge()
        expected = x @ (alone.base + 2.0 * alone.lora_b @ alone.lora_a).t()
        assert not torch.allclose(expected, before, atol=1e-2)
        assert torch.allclose(group(x)[:, :8], expected, atol=1e-4)
        assert torch.allclose(alone(x), expected, atol=1e-4)
        alone.merge(adapter=False)
        assert torch.allclose(group(x)[:, :8], before, atol=1e-4)


def test_packing_is_never_chosen_where_there_is_none() -> None:
    assert is_packing_faster(torch.float32, torch.device("meta")) is False
    assert isinstance(is_packing_faster(torch.float32, torch.device("cpu")), bool)
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert is_packing_faster(torch.bfloat16, torch.device("cpu")) is False
