"""Drawing tokens from logits: inverse transform sampling, one uniform number a row, exact log-probs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from agentrft.errors import EngineFault

_BLOCK = 256
"""Vocabulary entries summed together before the search; two short searches beat one over 50,000 entries."""

_BELOW_ONE = 1 - 2**-24
"""The largest float32 below 1; times any total it is below that total."""


def draw(logits: Tensor, uniforms: Tensor, temperatures: Tensor) -> tuple[list[int], list[float]]:
    """A token per row and its log-prob (nats).

    `logits` [B, V] float32 is overwritten. `uniforms` [B] in [0, 1). Rows with temperature 0 take the most likely token
    and report its log-prob at temperature 1; the others report the log-prob under logits / temperature. Each row's
    result depends on that row alone, bit for bit. Raises EngineFault when logits are not numbers.
    """
    greedy = temperatures == 0
    if bool((temperatures != 1).any()):
        logits.div_(torch.where(greedy, torch.ones_like(temperatures), temperatures)[:, None])
    best = logits.argmax(-1) if bool(greedy.any()) else None
    rows, vocabulary = logits.shape
    blocks = -(-vocabulary // _BLOCK)
    weights = logits.sub_(logits.amax(-1, keepdim=True)).exp_()
    if rest := blocks * _BLOCK - vocabulary:
        weights = pad(weights, (0, rest))
    by_block = weights.view(rows, blocks, _BLOCK)
    ends = by_block.sum(-1).cumsum(-1)
    total = ends[:, -1:]
    if bool(total.isnan().any()):
        raise EngineFault(
            "the model's logits are not numbers, so its weights have diverged; go back to an earlier checkpoint and "
            "lower learning_rate"
        )
    # A uniform drawn in float64 may round to 1, and no token's weight reaches past the total.
    target = uniforms[:, None].clamp(max=_BELOW_ONE) * total
    block = torch.searchsorted(ends, target, right=True).clamp_(max=blocks - 1)
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp_min(0)), torch.zeros_like(total))
    inside = by_block[torch.arange(rows, device=logits.device), block[:, 0]].cumsum(-1)
    # Rounding may leave the rest of the target at or past the block's end; stay on the last token with weight.
    left = torch.minimum(target - before, inside[:, -1:] * (1 - 1e-6))
    drawn = block * _BLOCK + torch.searchsorted(inside, left, right=True).clamp_(max=_BLOCK - 1)
    chosen = drawn[:, 0] if best is None else torch.where(greedy, best, drawn[:, 0])
    log_probs = (weights.gather(1, chosen[:, None]) / total).log()[:, 0]
    return chosen.tolist(), log_probs.tolist()
