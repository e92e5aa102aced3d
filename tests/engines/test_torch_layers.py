"""Each rewritten part against the plain formula: values, and gradients by finite differences in float64."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck

from agentrft.engines import torch_layers
from agentrft.engines.torch_layers import LoraGroup, LoraLinear, RmsNorm, rope, scored_tokens, swiglu, token_log_probs


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_swiglu() -> None:
    gate, up = (random(4, 6, seed=n).requires_grad_() for n in (1, 2))
    assert torch.allclose(swiglu(gate, up), F.silu(gate) * up)
    assert gradcheck(swiglu, (gate, up))


def test_rope_is_transformers_rotation() -> None:
    x = random(5, 3, 8, seed=1).requires_grad_()
    angles = random(5, 1, 4, seed=2)
    cos, sin = angles.cos(), angles.sin()
    half = torch.cat([-x[..., 4:], x[..., :4]], -1)
    expected = x * torch.cat([cos, cos], -1) + half * torch.cat([sin, sin], -1)
    assert torch.allclose(rope(x, cos, sin), expected)
    assert gradcheck(lambda value: rope(value, cos, sin), (x,))


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rms_norm(offset: float) -> None:
    x, weight = random(2, 5, 16, seed=1, dtype=torch.float32), nn.Parameter(random(16, seed=2, dtype=torch.float32))
    x.requires_grad_()
    norm = RmsNorm(weight, eps=1e-6, offset=offset)
    expected = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * (weight + offset)
    got = norm(x)
    assert torch.allclose(got, expected, atol=1e-6)
    pull = random(2, 5, 16, seed=3, dtype=torch.float32)
    wanted = torch.autograd.grad((expected * pull).sum(), (x, weight))
    found = torch.autograd.grad((got * pull).sum(), (x, weight))
    assert all(torch.allclose(mine, theirs, atol=1e-5) for mine, theirs in zip(found, wanted, strict=True))
    with torch.no_grad():
        assert torch.allclose(norm(x), expected, atol=1e-6)


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("rows", [5, 40])
def test_token_log_probs_with_several_terms_at_one_position(
    rows: int, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one chunk of 16 rows and in three."""
    monkeypatch.setattr(torch_layers, "_CHUNK", 0)
    if not keeps:  # what large passes do: compute them again in backward
        monkeypatch.setattr(torch_layers, "_KEPT", 0)
    hidden, head = (
        random(*shape, seed=n, dtype=torch.float32).requires_grad_() for n, shape in ((1, (rows, 8)), (2, (30, 8)))
    )
    where = torch.tensor([0, 0, 2, rows - 1, rows - 1, rows - 1, 3])
    targets = torch.tensor([4, 4, 29, 0, 1, 0, 7])
    pull = random(7, seed=3, dtype=torch.float32)
    expected = F.linear(hidden, head).log_softmax(-1)[where, targets]
    got, is_likeliest = scored_tokens(hidden, head, where, targets)
    assert torch.allclose(got, expected, atol=1e-6)
    assert torch.equal(got, token_log_probs(hidden, head, where, targets))
    assert torch.equal(is_likeliest, F.linear(hidden, head).argmax(-1)[where] == targets)
    best = F.linear(hidden, head).argmax(-1)[where]
    assert bool(scored_tokens(hidden, head, where, best)[1].all())
    wanted = torch.autograd.grad((expected * pull).sum(), (hidden, head))
    found = torch.autograd.grad((got * pull).sum(), (hidden, head))
    assert all(torch.allclose(mine, theirs, atol=1e-5) for mine, theirs in zip(found, wanted, strict=True))


def lora(out: int, seed: int, *, bias: bool, dtype: torch.dtype = torch.float32) -> LoraLinear:
    """An adapted layer whose adapter does something."""
    base = nn.Linear(12, out, bias=bias)
    with torch.no_grad():
        for n, parameter in enumerate(base.parameters()):
            parameter.copy_(random(*parameter.shape, seed=seed + n, dtype=torch.float32) * 0.3)
    layer = LoraLinear(base, rank=3, alpha=6.0, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        layer.lora_b.copy_(random(out, 3, seed=seed + 9, dtype=torch.float32) * 0.3)
    return layer


def plain(layer: LoraLinear, x: Tensor) -> Tensor:
    """base(x) + alpha / r · B A x, unmerged."""
    assert isinstance(layer.base, Tensor)
    bias = layer.bias if isinstance(layer.bias, Tensor) else None
    return F.linear(x, layer.base, bias) + 6.0 / 3 * F.linear(F.linear(x, layer.lora_a), layer.lora_b)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("grouped", [True, False])
def test_adapted_layers_alone_and_in_one_product(grouped: bool, bias: bool) -> None:
    layers = [lora(out, seed, bias=bias) for out, seed in ((5, 1), (7, 20), (5, 40))]
    group = LoraGroup.of(*layers)
    assert group is not None
    for layer in layers:
        layer.merge()
    x = random(9, 12, seed=5, dtype=torch.float32).requires_grad_()
    pulls = [random(9, out, seed=n, dtype=torch.float32) for n, out in enumerate((5, 7, 5))]
    leaves = [x, *(p for layer in layers for p in (layer.lora_a, layer.lora_b))]

    def outputs() -> Sequence[Tensor]:
        return group(x).split((5, 7, 5), dim=-1) if grouped else [layer(x) for layer in layers]

    expected = [plain(layer, x) for layer in layers]
    wanted = torch.autograd.grad(sum((y * pull).sum() for y, pull in zip(expected, pulls, strict=True)), leaves)
    got = outputs()
    found = torch.autograd.grad(sum((y * pull).sum() for y, pull in zip(got, pulls, strict=True)), leaves)
    for mine, theirs in zip([*got, *found], [*expected, *wanted], strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
    with torch.no_grad():
        assert all(torch.allclose(mine, theirs, atol=1e-5) for mine, theirs in zip(outputs(), expected, strict=True))


def test_a_group_needs_adapted_layers_that_agree_on_a_bias() -> None:
    assert LoraGroup.of(lora(5, 1, bias=True), lora(5, 2, bias=False)) is None
    assert LoraGroup.of(lora(5, 1, bias=True), nn.Linear(12, 5)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merging_and_setting_aside(dtype: torch.dtype) -> None:
    layer = lora(5, 1, bias=False, dtype=dtype)
    base, weight = layer.base, layer.weight
    assert isinstance(base, Tensor)
    assert isinstance(weight, Tensor)
    assert torch.equal(weight, base.to(dtype))  # not merged yet
    layer.merge()
    merged = (base + 2.0 * layer.lora_b @ layer.lora_a).to(dtype)
    assert torch.allclose(weight, merged, atol=1e-6)
    layer.merge(adapter=False)
    assert torch.equal(weight, base.to(dtype))
