"""A small model that truly learns, in numpy: training loops can be tested for what they are for."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentrft.errors import EngineFault, UserError
from agentrft.protocols import BackwardReport, Chunk, GenerateRequest, OptimReport
from agentrft.testing.policy import policy_pull
from agentrft.testing.preference import preference_pulls
from agentrft.types import Row

State = tuple[int, ...]
Table = dict[State, np.ndarray]
_MOMENTUM = 0.5
_TABLE_FILE = "table.json"
_PREFERENCE = ("dpo", "simpo", "kto")


class ScriptedLearner:
    """A softmax table: the next token's distribution depends on the last `order` tokens.

    It knows only the tokens in `ids` and starts uniform. Gradients are exact, updates are SGD with momentum (so that
    there is an optimiser state to save). `generator` draws from the same table. Log-probs of generator and learner
    agree to the last bit. Runs the losses `supervised`, `dpo`, `simpo`, `kto` and `testing.policy.TOKEN_WISE`.
    """

    def __init__(
        self, ids: Sequence[int], *, order: int = 3, context_tokens: int = 4096, max_delay_s: float = 0.0
    ) -> None:
        self.generator = TableGenerator(self, context_tokens, max_delay_s)
        self.table: Table = {}
        """Logits by state; a state never updated is absent and uniform."""
        self._velocity: Table = {}
        self._gradient: Table = {}
        self._ids = sorted(ids)
        self._column = {token: column for column, token in enumerate(self._ids)}
        self._order = order
        self._policy_version = 0

    @property
    def policy_version(self) -> int:
        """Optimiser steps taken."""
        return self._policy_version

    async def forward_backward(self, rows: Sequence[Row], loss: Any) -> BackwardReport:
        """Accumulate the gradient of `loss` over all rows."""
        started = time.monotonic()
        log_probs_R_T, gradients_R_T = ([[0.0] * len(row.ids) for row in rows] for _ in range(2))
        sums: dict[str, float] = defaultdict(float)
        pulls_R = await self._row_pulls(rows, loss, sums)
        for row, log_probs_T, gradients_T, row_pull in zip(rows, log_probs_R_T, gradients_R_T, pulls_R, strict=True):
            for t in _trained(row):
                probs = self.probabilities(row.ids[:t])
                column = self._column_of(row.ids[t])
                log_probs_T[t] = math.log(probs[column])
                pull = row_pull
                if pull is None:
                    pull = _pull(loss, log_probs_T[t], row.log_probs[t], row.credit[t], sums)
                gradients_T[t] = -pull
                self._push(row.ids[:t], column, probs, pull)
        tokens = sum(len(row.ids) for row in rows)
        trained = max(sums["tokens"], 1.0)
        return BackwardReport(
            log_probs=log_probs_R_T,
            gradients=gradients_R_T,
            loss=sums.pop("loss", 0.0),
            metrics={name: total / trained for name, total in sums.items() if name != "tokens"},
            unique_tokens=tokens,
            row_tokens=tokens,
            micro_batches=1,
            wall_s=time.monotonic() - started,
        )

    async def _row_pulls(self, rows: Sequence[Row], loss: Any, sums: dict[str, float]) -> list[float] | list[None]:
        """What preference losses, which look at whole units, pull all tokens of each row by; None for the others."""
        if loss.type not in _PREFERENCE:
            return [None] * len(rows)
        return preference_pulls(loss, rows, await self.log_probs(rows), sums)

    async def optim_step(self, lr: float) -> OptimReport:
        """One step of SGD with momentum on the accumulated gradient."""
        norm = math.sqrt(sum(float(np.sum(gradient**2)) for gradient in self._gradient.values()))
        for state in sorted(self._velocity.keys() | self._gradient.keys()):
            velocity = _MOMENTUM * _at(self._velocity, state, len(self._ids))
            self._velocity[state] = velocity + _at(self._gradient, state, len(self._ids))
            self.table[state] = _at(self.table, state, len(self._ids)) - lr * self._velocity[state]
        self._gradient = {}
        self._policy_version += 1
        return OptimReport(grad_norm=norm, policy_version=self._policy_version)

    async def log_probs(self, rows: Sequence[Row], *, reference: bool = False) -> list[list[float]]:
        """Log-probs at trained positions, 0.0 elsewhere; the reference is the uniform start."""
        result = []
        for row in rows:
            log_probs_T = [0.0] * len(row.ids)
            for t in _trained(row):
                probs = self.probabilities(() if reference else row.ids[:t])
                log_probs_T[t] = math.log(probs[self._column_of(row.ids[t])])
            result.append(log_probs_T)
        return result

    async def save(self, folder: Path) -> None:
        """One JSON file; floats survive it bit for bit."""
        document = {
            "policy_version": self._policy_version,
            "table": _listed(self.table),
            "velocity": _listed(self._velocity),
        }
        (folder / _TABLE_FILE).write_text(json.dumps(document))

    async def load(self, folder: Path) -> None:
        """What `save` wrote; drops a gradient under way."""
        document = json.loads((folder / _TABLE_FILE).read_text())
        self._policy_version = document["policy_version"]
        self.table = {tuple(state): np.array(values) for state, values in document["table"]}
        self._velocity = {tuple(state): np.array(values) for state, values in document["velocity"]}
        self._gradient = {}

    def probabilities(self, context: Sequence[int]) -> np.ndarray:
        """The next token's distribution over `ids`, in ascending order of id."""
        logits = _at(self.table, self._state(context), len(self._ids))
        weights = np.exp(logits - logits.max())
        return weights / weights.sum()

    def draw(self, context: Sequence[int], uniform: float, *, greedy: bool) -> tuple[int, float]:
        """The token at `uniform` in [0, 1) of the cumulative distribution (or the likeliest), and its log-prob."""
        probs = self.probabilities(context)
        drawn = int(np.argmax(probs)) if greedy else int(np.searchsorted(np.cumsum(probs), uniform, side="right"))
        column = min(drawn, len(self._ids) - 1)  # the cumulative sum may end a hair below 1
        return self._ids[column], math.log(probs[column])

    def _push(self, context: Sequence[int], column: int, probs: np.ndarray, pull: float) -> None:
        # d(−pull·log p_column)/d logits = −pull·(onehot − p)
        gradient = pull * probs
        gradient[column] -= pull
        state = self._state(context)
        self._gradient[state] = _at(self._gradient, state, len(self._ids)) + gradient

    def _state(self, context: Sequence[int]) -> State:
        return tuple(context[-self._order :])

    def _column_of(self, token: int) -> int:
        if token not in self._column:
            raise UserError(f"This learner cannot produce token {token}; expected one of {self._ids}.")
        return self._column[token]


class TableGenerator:
    """Draws from a ScriptedLearner's table as it is when each token is drawn."""

    def __init__(self, learner: ScriptedLearner, context_tokens: int, max_delay_s: float) -> None:
        self.context_tokens = context_tokens
        self._learner = learner
        self._max_delay_s = max_delay_s
        self._closed = False

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """One token a chunk, with a random delay before each reply that changes from run to run."""
        rng = random.Random(request.seed)
        await asyncio.sleep(random.random() * self._max_delay_s)
        context = list(request.tokens)
        for count in range(1, request.max_new_tokens + 1):
            if self._closed:
                raise EngineFault("closed")
            token, log_prob = self._learner.draw(context, rng.random(), greedy=request.temperature == 0)
            context.append(token)
            reason = "stop" if token in request.stop_ids else "length" if count == request.max_new_tokens else None
            version = self._learner.policy_version
            yield Chunk(tokens=[token], log_probs=[log_prob], finish_reason=reason, policy_version=version)
            if reason:
                return

    async def close(self) -> None:
        """Later tokens end with EngineFault."""
        self._closed = True


def _trained(row: Row) -> list[int]:
    return [t for t, trained in enumerate(row.trained) if trained]


def _pull(loss: Any, log_prob: float, generator_log_prob: float, credit: float, sums: dict[str, float]) -> float:
    """−d loss / d log_prob of one token; adds its share to `sums`. The formulas of `agentrft.losses`, in floats."""
    sums["tokens"] += 1
    if loss.type == "supervised":
        sums["loss"] -= credit * log_prob
        sums["nll"] -= log_prob
        return credit
    return policy_pull(loss, log_prob, generator_log_prob, credit, sums)


def _at(table: Table, state: State, width: int) -> np.ndarray:
    values = table.get(state)
    return np.zeros(width) if values is None else values


def _listed(table: Table) -> list[tuple[list[int], list[float]]]:
    return [(list(state), table[state].tolist()) for state in sorted(table)]
