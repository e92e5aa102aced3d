"""The learner: exact gradients over prefix trees, AdamW in float32, one optimiser step at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from agentrft.engines import torch_weights
from agentrft.engines.prefix_tree import Forest, lay_out, micro_batches, needed_tokens
from agentrft.engines.torch_attention import ForestAttention, Piece
from agentrft.engines.torch_layers import scored_tokens
from agentrft.engines.torch_model import TorchModel
from agentrft.errors import EngineFault, UserError
from agentrft.losses import LOSSES, LossBatch
from agentrft.protocols import BackwardReport, OptimReport
from agentrft.types import Row

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSettings:
    """How a learner updates."""

    max_grad_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    micro_batch_tokens: int = 1024
    """Unique tokens of one pass: bounds memory, never changes the gradient."""
    share_prefixes: bool = True
    """Off computes each row on its own: the comparison that benchmarks need."""


class TorchLearner:
    """Implements `protocols.Learner` on one TorchModel; all work runs on the engine's thread."""

    def __init__(
        self, model: TorchModel, executor: Executor, settings: LearnerSettings, *, on_update: Callable[[], None]
    ) -> None:
        """`on_update` runs on the engine's thread after weights change (generators drop their KV)."""
        self._model = model
        self._executor = executor
        self._on_update = on_update
        self._settings = settings
        self._parameters = model.parameters()
        self._masters = {name: torch_weights.master_of(p) for name, p in self._parameters.items()}
        self._optimizer = torch.optim.AdamW(
            list(self._masters.values()),
            lr=0.0,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            foreach=False,
        )
        self._start: dict[str, Tensor] = {}
        """The adapter that training began with; empty where that was none, or a fresh one, which does nothing yet."""

    @property
    def policy_version(self) -> int:
        return self._model.version

    async def forward_backward(self, rows: Sequence[Row], loss: Any) -> BackwardReport:
        """See `protocols.Learner`; raises UserError for rows longer than the model's context."""
        return await self._run(lambda: self._forward_backward(rows, loss))

    async def optim_step(self, lr: float) -> OptimReport:
        """See `protocols.Learner`; raises EngineFault, and changes nothing, when the gradient is not finite."""
        return await self._run(lambda: self._optim_step(lr))

    async def log_probs(self, rows: Sequence[Row], *, reference: bool = False) -> list[list[float]]:
        """See `protocols.Learner`; `reference` without an adapter raises UserError (there is no second model)."""
        return await self._run(lambda: self._log_probs(rows, reference))

    async def save(self, folder: Path) -> None:
        """See `protocols.Learner`."""
        await self._run(lambda: torch_weights.save(self._model, self._masters, self._optimizer, folder))

    async def load(self, folder: Path) -> None:
        """See `protocols.Learner`."""
        await self._run(lambda: self._load(folder))

    async def load_weights(self, folder: Path) -> None:
        """Start from a saved adapter or model with a fresh optimiser; an adapter is the reference from now on."""
        await self._run(lambda: self._load_weights(folder))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _forward_backward(self, rows: Sequence[Row], loss: Any) -> BackwardReport:
        start = time.perf_counter()
        self._check(rows)
        batches = micro_batches(rows, self._settings.micro_batch_tokens)
        out, gradients = ([[0.0] * len(row.ids) for row in rows] for _ in range(2))
        total, unique, sums = 0.0, 0, {"tokens": 0.0}
        for batch in batches:
            part = [rows[i] for i in batch]
            forest = lay_out(part, share=self._settings.share_prefixes)
            unique += len(forest.ids)
            if len(forest.targets) == 0:
                continue
            leaf, log_probs, is_likeliest = self._forward(forest)
            result = LOSSES[loss.type](_loss_batch(leaf, forest, part), loss)
            result.loss.backward()
            assert leaf.grad is not None
            log_probs.backward(leaf.grad)
            self._collect_gradients()
            total += float(result.loss.detach())
            for name, value in result.metrics.items():
                sums[name] = _combined(name, sums.get(name), float(value))
            if loss.type == "supervised":
                sums["token_accuracy"] = sums.get("token_accuracy", 0.0) + float(is_likeliest.sum())
            _scatter(out, batch, forest, leaf.detach())
            _scatter(gradients, batch, forest, leaf.grad)
        tokens = max(sums.pop("tokens"), 1.0)
        return BackwardReport(
            log_probs=out,
            gradients=gradients,
            loss=total,
            metrics={name: value if name.endswith("_max") else value / tokens for name, value in sums.items()},
            unique_tokens=unique,
            row_tokens=sum(needed_tokens(row) for row in rows),
            micro_batches=len(batches),
            wall_s=time.perf_counter() - start,
        )

    def _forward(self, forest: Forest) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probs of the forest's terms: a detached leaf for the loss, and the tensor to push its gradient into; and
        whether each term is the likeliest token."""
        device = self._model.device
        ids, positions, head_at, where, targets = (
            torch.from_numpy(x).to(device)
            for x in (forest.ids, forest.positions, forest.head_at, forest.where, forest.targets)
        )
        hidden = self._model.forward(ids, positions, ForestAttention(pieces_of(forest), positions))
        log_probs, is_likeliest = scored_tokens(hidden[head_at], self._model.head, where, targets)
        return log_probs.detach().requires_grad_(), log_probs, is_likeliest

    def _optim_step(self, lr: float) -> OptimReport:
        masters = list(self._masters.values())
        norm = torch.nn.utils.clip_grad_norm_(masters, self._settings.max_grad_norm, foreach=False)
        if not bool(torch.isfinite(norm)):
            self._optimizer.zero_grad(set_to_none=True)
            raise EngineFault(
                f"the gradient's norm is {float(norm)}, expected a finite number; the weights were left as they are. "
                "Look for extreme rewards or lower learning_rate, then resume from the last checkpoint"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._publish()
        self._model.version += 1
        return OptimReport(grad_norm=float(norm), policy_version=self._model.version)

    def _log_probs(self, rows: Sequence[Row], reference: bool) -> list[list[float]]:
        self._check(rows)
        if reference and self._model.lora is None:
            raise UserError(
                "reference log-probs need an adapter to switch off; got a full fine-tuning run, expected `lora`",
                param="training.lora",
                code="reference_needs_adapter",
            )
        out = [[0.0] * len(row.ids) for row in rows]
        with torch.no_grad(), self._as_it_began() if reference else nullcontext():
            for batch in micro_batches(rows, self._settings.micro_batch_tokens):
                forest = lay_out([rows[i] for i in batch], share=self._settings.share_prefixes)
                if len(forest.targets):
                    _scatter(out, batch, forest, self._forward(forest)[1])
        return out

    @contextmanager
    def _as_it_began(self) -> Iterator[None]:
        """The model merged with the adapter that training began with, or with none; then with its own again."""
        now = {name: self._parameters[name].detach().clone() for name in self._start}
        try:
            self._put(self._start)
            self._model.merge(adapter=bool(self._start))
            yield
        finally:
            self._put(now)
            self._model.merge()

    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._parameters[name].data.copy_(value)

    def _check(self, rows: Sequence[Row]) -> None:
        longest = max((len(row.ids) for row in rows), default=0)
        if longest > self._model.context_tokens:
            raise UserError(
                f"a row has {longest} tokens, the model's context is {self._model.context_tokens}; lower "
                "agent.limits.max_episode_tokens or drop the long rows",
                param="agent.limits.max_episode_tokens",
                code="context_overflow",
            )

    def _collect_gradients(self) -> None:
        """Add half-precision gradients to their float32 masters, so that micro-batches do not round."""
        for name, parameter in self._parameters.items():
            master = self._masters[name]
            if master is parameter or parameter.grad is None:
                continue
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    @torch.no_grad()
    def _publish(self) -> None:
        """Make the masters' values what the next forward and the next rollout use."""
        for name, parameter in self._parameters.items():
            if self._masters[name] is not parameter:
                parameter.copy_(self._masters[name])
        self._model.merge()
        self._on_update()

    def _load(self, folder: Path) -> None:
        torch_weights.load(self._model, self._masters, self._optimizer, folder)
        self._publish()

    def _load_weights(self, folder: Path) -> None:
        torch_weights.load_weights(self._model, self._masters, folder)
        self._publish()
        if self._model.lora is not None:
            self._start = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}


def pieces_of(forest: Forest) -> list[Piece]:
    """Attention pieces of a forest: every segment on itself, then all its descendants on it, outermost first."""
    own = [Piece(s.start, s.end, s.start, s.end) for s in forest.segments]
    shared = [Piece(s.end, s.subtree_end, s.start, s.end) for s in forest.segments if s.subtree_end > s.end]
    return own + shared


def _loss_batch(leaf: torch.Tensor, forest: Forest, rows: Sequence[Row]) -> LossBatch:
    terms = list(zip(forest.term_row.tolist(), forest.term_at.tolist(), strict=True))

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=leaf.device)

    return LossBatch(
        log_probs=leaf,
        generator_log_probs=column([rows[r].log_probs[t] for r, t in terms]),
        credit=column([rows[r].credit[t] for r, t in terms]),
        row=torch.from_numpy(forest.term_row).to(leaf.device),
        **_preference_columns(rows, terms, column),
    )


def _preference_columns(
    rows: Sequence[Row], terms: Sequence[tuple[int, int]], column: Callable[[list[float]], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What preference losses need beside the rest; empty where no row has a sign."""
    if not any(row.sign for row in rows):
        return {}
    units = {unit: index for index, unit in enumerate(dict.fromkeys(row.unit for row in rows))}
    columns = {"sign": column([row.sign for row in rows]), "unit": column([units[row.unit] for row in rows]).long()}
    if all(len(row.reference_log_probs) for row in rows):
        columns["reference_log_probs"] = column([rows[r].reference_log_probs[t] for r, t in terms])
    return columns


def _combined(name: str, so_far: float | None, value: float) -> float:
    """Metrics add up over micro-batches, except extremes."""
    if so_far is None:
        return value
    return max(so_far, value) if name.endswith("_max") else so_far + value


def _scatter(out: list[list[float]], batch: Sequence[int], forest: Forest, log_probs: torch.Tensor) -> None:
    values: np.ndarray = log_probs.cpu().numpy()
    for r, t, value in zip(forest.term_row.tolist(), forest.term_at.tolist(), values.tolist(), strict=True):
        out[batch[r]][t] = value
