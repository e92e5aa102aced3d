"""`agentrft pairs JOB --out FILE`: preference pairs from what a stored job played."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agentrft.cli.console import err, note, out, safe
from agentrft.cli.recorded import none_found, recorded_episodes

if TYPE_CHECKING:
    from agentrft.data.pairs import Pairing, RecordedPair


def pairs(
    job: str = typer.Argument(help="The id of a stored job, or the beginning of one.", metavar="JOB"),
    out_file: Path = typer.Option(..., "--out", help="Where the pairs go (JSONL).", metavar="FILE"),
    held_out: Path | None = typer.Option(
        None, help="Where the pairs of some items go, for `data.preferences_validation`.", metavar="FILE"
    ),
    held_out_share: float = typer.Option(0.1, min=0.01, max=0.9, help="Share of the items for --held-out."),
    margin: float = typer.Option(0.3, min=1e-6, help="The preferred reward is higher by at least this."),
    length_ratio: float = typer.Option(2.0, min=1.0, help="No side is more than this many times as long."),
    per_item: int = typer.Option(2, min=1, help="Pairs of one item at most."),
) -> None:
    """Write pairs of recorded episodes of the same item, good before bad, in OpenAI's preference format."""
    from agentrft.data.export import write_rows
    from agentrft.data.pairs import PairRules, is_held_out, pair_row, pair_up
    from agentrft.errors import UserError

    if held_out == out_file:
        raise UserError(f"--held-out and --out are both {out_file}; expected two files", param="--held-out")
    with err().status("reading the episodes …"):
        records, tools_by_item = recorded_episodes(job)
    pairing = pair_up(records, PairRules(margin=margin, length_ratio=length_ratio, per_item=per_item))
    if not pairing.pairs:
        raise none_found("pairs", f"{_account(pairing)}. Lower --margin, raise --length-ratio, or play more episodes")
    files = {
        out_file: [pair for pair in pairing.pairs if not held_out or not is_held_out(pair.item_id, held_out_share)]
    }
    if held_out:
        files[held_out] = [pair for pair in pairing.pairs if is_held_out(pair.item_id, held_out_share)]
    for path, chosen in files.items():
        if not chosen:
            step = "Leave --held-out out, change --held-out-share, or play more episodes"
            raise none_found(f"pairs for {path}", f"{len(pairing.pairs)} pairs were too few to divide. {step}")
    for path, chosen in files.items():
        write_rows(path, [pair_row(pair, tools_by_item.get(pair.item_id, ())) for pair in chosen], param="--out")
        out().print(safe(f"{path}: {_summary(chosen)}"), soft_wrap=True)
    note(_account(pairing))


def _summary(chosen: Sequence[RecordedPair]) -> str:
    items = len({pair.item_id for pair in chosen})
    margin = sum(pair.margin for pair in chosen) / len(chosen)
    shared = sum(pair.shared_turns > 0 for pair in chosen)
    return f"{len(chosen)} pairs of {items} items, mean margin {margin:.2f}, {shared} of them part after a tool result"


def _account(pairing: Pairing) -> str:
    return (
        f"{pairing.episodes} training episodes, {pairing.whole} of them answered, graded and readable, of "
        f"{pairing.items} items; {pairing.items_without_margin} items without a margin, "
        f"{pairing.items_without_likeness} without two episodes of similar length"
    )
