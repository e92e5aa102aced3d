"""Parts of a decoder layer rewritten for memory traffic: same numbers as transformers', fewer passes and fewer copies.

On two cores a training pass spends more time on element-wise work and fresh memory than on matrix products, so each
function here saves its inputs only and recomputes the cheap rest in backward. `torch_model` swaps a part in only after
checking, on random input, that it gives what the model's own module gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from agentrft.engines.torch_packed import PackedLinear


class _LoraLinear(Function):
    """y = x Wᵀ with W = base + scale·B·A already merged, for one or several adapted layers of one input.

    The layers' weights are rows of one matrix, their A's rows of another; only B is a list. Forward uses the same
    merged weight as generation, so trained and generated log-probs agree; backward gives the exact gradients of A, B.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: float, a: Tensor, *b: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, a, *b)
        ctx.scale = scale
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        x, weight, a, *b = ctx.saved_tensors
        grad_2d, x_2d = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grads = grad_2d.split([part.shape[0] for part in b], dim=1)
        low = x_2d @ a.to(x.dtype).t()
        grad_b, grad_low, at = [], torch.empty_like(low), 0
        for part, grad_part in zip(b, grads, strict=True):
            span = slice(at, at := at + part.shape[1])
            torch.mm(grad_part, part.to(grad.dtype), out=grad_low[:, span])
            grad_b.append((grad_part.t() @ low[:, span]).float().mul_(ctx.scale))
        grad_a = (grad_low.t() @ x_2d).float().mul_(ctx.scale)
        grad_x = (grad_2d @ weight).view_as(x) if ctx.needs_input_grad[0] else None
        return grad_x, None, None, grad_a, *grad_b


class LoraLinear(nn.Module):
    """A linear layer with a low-rank adapter, kept merged: `weight` = base + (alpha / r)·B·A in the compute dtype.

    Source: Hu et al. 2021 (arXiv 2106.09685); initialisation as PEFT's (A Kaiming-uniform, B zero).
    """

    base: Tensor
    weight: Tensor
    bias: Tensor | None
    packed: PackedLinear | None = None
    """Computes products without gradients, where that is faster."""

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float, dtype: torch.dtype, generator: torch.Generator):
        super().__init__()
        self.scale = alpha / rank
        self.register_buffer("base", base.weight.detach().float(), persistent=False)
        self.register_buffer("weight", base.weight.detach().to(dtype, copy=True), persistent=False)
        self.register_buffer("bias", None if base.bias is None else base.bias.detach().to(dtype), persistent=False)
        bound = 1.0 / math.sqrt(base.in_features)
        a = torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_a = nn.Parameter(a.to(base.weight.device))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return F.linear(x, self.weight, self.bias) if self.packed is None else self.packed(x, self.bias)
        y = _LoraLinear.apply(x, self.weight, self.scale, self.lora_a, self.lora_b)
        return y if self.bias is None else y + self.bias

    @torch.no_grad()
    def merge(self, *, adapter: bool = True) -> None:
        """Refresh `weight` from the float32 base and the adapter (or from the base alone)."""
        if not adapter:
            self.weight.copy_(self.base)
        elif self.weight.dtype == torch.float32:
            torch.addmm(self.base, self.lora_b, self.lora_a, alpha=self.scale, out=self.weight)
        else:
            self.weight.copy_(torch.addmm(self.base, self.lora_b, self.lora_a, alpha=self.scale))


class LoraGroup:
    """Adapted layers that read the same input, as one matrix product.

    The layers stay what they are (names, parameters, merging); their merged weights become rows of one matrix.
    """

    def __init__(self, parts: Sequence[LoraLinear]) -> None:
        self._parts = parts
        self._weight = torch.cat([part.weight for part in parts])
        for part, rows in zip(parts, self._weight.split([part.weight.shape[0] for part in parts]), strict=True):
            part.weight = rows
        biases = [part.bias for part in parts if part.bias is not None]
        self._bias = torch.cat(biases) if biases else None
        self._packed: PackedLinear | None = None

    def pack(self) -> None:
        """From now on compute products without gradients from a packed copy."""
        self._packed = PackedLinear(self._weight)

    @classmethod
    def of(cls, *parts: nn.Module) -> LoraGroup | None:
        """A group of `parts`, or None unless all are adapted and agree on having a bias."""
        lora = [part for part in parts if isinstance(part, LoraLinear)]
        same_bias = len({part.bias is None for part in lora}) == 1
        return cls(lora) if len(lora) == len(parts) and same_bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """What the layers give for x, side by side."""
        if not torch.is_grad_enabled():
            return F.linear(x, self._weight, self._bias) if self._packed is None else self._packed(x, self._bias)
        a = torch.cat([part.lora_a for part in self._parts])
        b = [part.lora_b for part in self._parts]
        y = _LoraLinear.apply(x, self._weight, self._parts[0].scale, a, *b)
        return y if self._bias is None else y + self._bias


class _RmsNorm(Function):
    """Root-mean-square norm that saves only its input and one number a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return F.rms_norm(x, (x.shape[-1],), weight, eps)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (grad,) = grad_outputs
        x, weight = ctx.saved_tensors
        x32, grad32 = x.float(), grad.float()
        inverse = torch.linalg.vector_norm(x32, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(ctx.eps).rsqrt_()
        unit = x32 * inverse
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (grad32 * unit).reshape(-1, x.shape[-1]).sum(0).to(weight.dtype)
        grad_unit = grad32 * weight.float()
        dot = torch.linalg.vecdot(grad_unit, unit).unsqueeze(-1).div_(x.shape[-1])
        grad_x = grad_unit.addcmul_(unit, dot, value=-1.0).mul_(inverse)
        return grad_x.to(x.dtype), grad_weight, None


class RmsNorm(nn.Module):
    """Fused replacement of a transformers RMSNorm; `offset` is 1 where the family stores weight − 1 (Gemma)."""

    def __init__(self, weight: nn.Parameter, *, eps: float, offset: float) -> None:
        super().__init__()
        self.weight = weight
        self.eps = eps
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.offset == 0.0 else self.weight + self.offset
        if not torch.is_grad_enabled():
            return F.rms_norm(x, (x.shape[-1],), weight, self.eps)
        return _RmsNorm.apply(x, weight, self.eps)


class _SwiGlu(Function):
    """silu(gate) · up, saving gate and up only."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grad_outputs
        gate, up = ctx.saved_tensors
        grad_up = F.silu(gate).mul_(grad)
        grad_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return grad_gate, grad_up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up, shapes alike."""
    return _SwiGlu.apply(gate, up) if torch.is_grad_enabled() else F.silu(gate).mul_(up)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    out = torch.empty_like(x)
    torch.mul(first, cos, out=out[..., :half]).addcmul_(second, sin, value=-1.0)
    torch.mul(second, cos, out=out[..., half:]).addcmul_(first, sin)
    return out


class _Rope(Function):
    """Rotary embedding; its transpose is the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grad_outputs
        cos, sin = ctx.saved_tensors
        return _rotate(grad, cos, -sin), None, None


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [N, heads, D] by cos, sin [N, 1, D/2] (the first half of transformers' doubled tables)."""
    return _Rope.apply(x, cos, sin) if torch.is_grad_enabled() else _rotate(x, cos, sin)


_CHUNK = 6 << 20
"""Logits computed at once: few enough that the passes over them find them in the processor's cache."""
_KEPT = 64 << 20
"""Probabilities kept for backward instead of computed again: up to 256 MB in float32."""


class _TokenLogProbs(Function):
    """Log-probs of chosen tokens, and whether each is the likeliest, in chunks of rows; large passes compute their
    probabilities again to save memory.

    The gradient for a hidden state is Σ grad · head[target] − (Σ grad) · (probabilities @ head), so the probabilities
    are all that backward needs, and no other pass over the vocabulary.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, where: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        log_z, highest = (torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device) for _ in range(2))
        picked = torch.empty(where.shape[0], dtype=torch.float32, device=hidden.device)
        keep = hidden.shape[0] * head.shape[0] <= _KEPT and ctx.needs_input_grad[0]
        ctx.kept = []
        for part in _chunks(hidden, head):
            logits = F.linear(hidden[part], head).float()
            here = ((where >= part.start) & (where < part.stop)).nonzero()[:, 0]
            picked[here] = logits[where[here] - part.start, targets[here]]
            probs = torch.softmax(logits, -1)
            highest[part] = logits.amax(-1)
            log_z[part] = highest[part] - probs.amax(-1).log()
            if keep:
                ctx.kept.append(probs.to(head.dtype))
        ctx.save_for_backward(hidden, head, where, targets, log_z)
        is_likeliest = picked >= highest[where]
        ctx.mark_non_differentiable(is_likeliest)
        return picked - log_z[where], is_likeliest

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad = grad_outputs[0]
        hidden, head, where, targets, log_z = ctx.saved_tensors
        total = torch.zeros_like(log_z).index_add_(0, where, grad).neg_()[:, None]
        expected = torch.empty_like(hidden)
        grad_head = torch.zeros_like(head, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for index, part in enumerate(_chunks(hidden, head)):
            if ctx.kept:
                probs = ctx.kept[index]
            else:
                probs = F.linear(hidden[part], head).float().sub_(log_z[part, None]).exp_().to(head.dtype)
            torch.mm(probs, head, out=expected[part])
            if grad_head is not None:
                grad_head.addmm_(probs.t().float(), hidden[part].float() * total[part])
        ctx.kept = []
        grad_hidden = (expected.float() * total).index_add_(0, where, head[targets].float() * grad[:, None])
        if grad_head is not None:
            grad_head.index_add_(0, targets, hidden[where].float() * grad[:, None])
            grad_head = grad_head.to(head.dtype)
        return grad_hidden.to(hidden.dtype), grad_head, None, None


def _chunks(hidden: Tensor, head: Tensor) -> list[slice]:
    """Rows of `hidden` whose logits are computed together; on a GPU there is no cache to fit."""
    rows = hidden.shape[0]
    step = min(512, max(16, _CHUNK // head.shape[0])) if hidden.device.type == "cpu" else 512
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def token_log_probs(hidden: Tensor, head: Tensor, where: Tensor, targets: Tensor) -> Tensor:
    """Log-prob [n] (float32, nats) of `targets` [n] at positions `where` [n] of `hidden` [U, E]; head is [V, E].

    Several terms may share one position: two members that took the same first action are two terms of the loss but
    one row of logits.
    """
    return scored_tokens(hidden, head, where, targets)[0]


def scored_tokens(hidden: Tensor, head: Tensor, where: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """`token_log_probs`, and for each target whether no token is likelier there: bool [n], which has no gradient."""
    return _TokenLogProbs.apply(hidden, head, where, targets)
