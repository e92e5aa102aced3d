"""From logits to tokens where a request wants more than plain sampling: constraints, top_p, likeliest tokens.

Whatever narrows the draw, the log-probs that are reported are those of the model's own distribution at the request's
temperature: they are what a learner computes again, and what a reader of log-probs wants to know.
"""

from __future__ import annotations

from collections.abc import Sequence as Listed
from dataclasses import dataclass

import torch
from torch import Tensor

from agentrft.engines.torch_sampling import draw
from agentrft.engines.torch_sequence import Sequence
from agentrft.errors import EngineFault, UserError


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token for one sequence."""

    token: int
    log_prob: float
    top: tuple[tuple[int, float], ...] | None = None
    """The likeliest (id, log-prob), when they were asked for."""


def choose(logits: Tensor, sequences: Listed[Sequence]) -> list[Drawn | Exception]:
    """A token for each row of logits [B, V] float32, which is overwritten; an exception costs only its own sequence.

    Raises EngineFault when the logits of the model's own weights are not numbers.
    """
    device = logits.device
    uniforms = torch.tensor([s.uniforms.random() for s in sequences], device=device)
    temperatures = torch.tensor([s.request.temperature for s in sequences], device=device)
    faults = _unsound(logits, sequences)
    special = [row for row, s in enumerate(sequences) if _wants_more(s)]
    own = _narrow(logits, special, sequences, temperatures, faults) if special else None
    tokens, log_probs = draw(logits, uniforms, temperatures)
    drawn: list[Drawn | Exception] = [Drawn(*pair) for pair in zip(tokens, log_probs, strict=True)]
    if own is not None:
        picked = own.gather(1, torch.tensor([[tokens[row]] for row in special], device=device))[:, 0].tolist()
        tops = _likeliest(own, [sequences[row].request.top_logprobs for row in special])
        for row, log_prob, top in zip(special, picked, tops, strict=True):
            drawn[row] = Drawn(tokens[row], log_prob, top)
    for row, fault in faults.items():
        drawn[row] = fault
    return drawn


def _wants_more(sequence: Sequence) -> bool:
    request = sequence.request
    return sequence.guide is not None or request.top_p < 1 or request.top_logprobs > 0


def _unsound(logits: Tensor, sequences: Listed[Sequence]) -> dict[int, Exception]:
    """Faults of adapters whose logits are not numbers; their rows become zeros, for the others' sake."""
    rows = [row for row, s in enumerate(sequences) if s.adapter is not None]
    sound = torch.isfinite(logits).all(-1).tolist() if rows else []
    faults: dict[int, Exception] = {}
    for row in rows:
        if not sound[row]:
            faults[row] = EngineFault(
                f"the logits of adapter {sequences[row].request.adapter} are not numbers, so its weights have "
                "diverged; play an earlier checkpoint"
            )
            logits[row] = 0.0
    return faults


def _narrow(
    logits: Tensor,
    special: Listed[int],
    sequences: Listed[Sequence],
    temperatures: Tensor,
    faults: dict[int, Exception],
) -> Tensor:
    """Hide what the rows `special` may not draw, adding to `faults` what failed; their log-probs [n, V] before that."""
    rows = torch.tensor(special, device=logits.device)
    part, scale = logits[rows], temperatures[rows][:, None]
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    own = (part / scale).log_softmax(-1)
    for place, row in enumerate(special):
        guide = sequences[row].guide
        if guide is not None and row not in faults:
            try:
                part[place].masked_fill_(~guide.mask().to(part.device), float("-inf"))
            except UserError as error:
                faults[row] = error
    top_ps = torch.tensor([sequences[row].request.top_p for row in special], device=part.device)
    if bool((top_ps < 1).any()):
        _keep_top_p(part, part / scale, top_ps)
    logits[rows] = part
    return own


def _keep_top_p(part: Tensor, scaled: Tensor, top_ps: Tensor) -> None:
    """Hide all but the likeliest tokens that together reach top_p; at least one stays."""
    probabilities, order = scaled.softmax(-1).sort(-1, descending=True)
    before = probabilities.cumsum(-1) - probabilities
    beyond = before >= top_ps[:, None]
    beyond[:, 0] = False
    beyond[top_ps >= 1] = False  # rounding may put the last tokens past a total of 1
    part.masked_fill_(torch.zeros_like(beyond).scatter(1, order, beyond), float("-inf"))


def _likeliest(own: Tensor, counts: Listed[int]) -> list[tuple[tuple[int, float], ...] | None]:
    most = max(counts)
    if most == 0:
        return [None] * len(counts)
    values, ids = own.topk(min(most, own.shape[1]), -1)
    pairs = [tuple(zip(*row, strict=True)) for row in zip(ids.tolist(), values.tolist(), strict=True)]
    return [pair[:count] if count else None for pair, count in zip(pairs, counts, strict=True)]
