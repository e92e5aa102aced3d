"""How much arithmetic prefix sharing saves: FLOPs of one forward and backward pass, packed and padded.

Each part is weighted by what a training pass needs of it. A group is G rows with a shared prompt of P tokens and S
further tokens each, all of them trained.

    linear     every computed token meets every weight once forward and once for the gradient to its input; full
               fine-tuning adds the gradient to the weight
    attention  two products for each (token, earlier token) pair forward, five backward (scores are recomputed)
    head       as linear, only at positions that predict a trained token; the same for both
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a model costs; the attention width is heads x head size."""

    linear_weights: int
    attention_width: int
    layers: int
    head_weights: int
    trains_weights: bool = False
    """Full fine-tuning; adapters need the gradients to inputs only (their own products are a few per cent)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One group: prompt tokens P, further tokens S, members G."""

    prompt: int
    suffix: int
    members: int

    @property
    def unique_tokens(self) -> int:
        """Tokens computed when the prompt is shared."""
        return self.prompt + self.members * self.suffix

    @property
    def row_tokens(self) -> int:
        """Tokens computed when it is not."""
        return self.members * (self.prompt + self.suffix)

    @property
    def shared_pairs(self) -> int:
        """(token, itself or earlier token) pairs with the prompt shared."""
        each = self.suffix * self.prompt + _triangle(self.suffix)
        return _triangle(self.prompt) + self.members * each

    @property
    def row_pairs(self) -> int:
        """The same without sharing."""
        return self.members * _triangle(self.prompt + self.suffix)


def training_flops(shape: Shape, group: Group, *, packed: bool) -> float:
    """FLOPs of one forward and backward pass over one group."""
    tokens = group.unique_tokens if packed else group.row_tokens
    pairs = group.shared_pairs if packed else group.row_pairs
    passes = 3 if shape.trains_weights else 2
    linear = 2.0 * passes * shape.linear_weights * tokens
    attention = 2.0 * (2 + 5) * shape.attention_width * shape.layers * pairs
    head = 2.0 * passes * shape.head_weights * group.members * group.suffix
    return linear + attention + head


def flop_ratio(shape: Shape, group: Group) -> float:
    """How many times more arithmetic padded training does: the speedup if time were all arithmetic."""
    return training_flops(shape, group, packed=False) / training_flops(shape, group, packed=True)


def _triangle(n: int) -> int:
    return n * (n + 1) // 2
