"""What a preset averages over: the number that a row's advantage is divided by. Plain numbers, no torch."""

from __future__ import annotations

from collections.abc import Sequence

from agentrft.losses.spec import DrGrpoLoss, PolicyLoss


def row_divisors(loss: PolicyLoss, tokens_R: Sequence[int]) -> list[float]:
    """For each row of the step, what divides its advantage to make the credit of one of its tokens.

    `tokens_R` are the trained tokens of the step's rows, all of them: with the same numbers for every micro-batch any
    split gives the same gradient. With N tokens and R rows, the divisors are N (`token_mean`), R·tokens of the row
    (`row_mean`) or R (`row_sum`; dr_grpo multiplies by its constant). A row without tokens counts as a row.
    """
    rows = len(tokens_R)
    match loss.normaliser:
        case "token_mean":
            return [max(sum(tokens_R), 1)] * rows
        case "row_mean":
            return [rows * max(tokens, 1) for tokens in tokens_R]
        case "row_sum":
            return [rows * (loss.row_tokens if isinstance(loss, DrGrpoLoss) else 1)] * rows
