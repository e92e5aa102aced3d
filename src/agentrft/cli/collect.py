"""`agentrft collect JOB --min-reward R --out FILE`: demonstrations from what a stored job played well."""

from __future__ import annotations

from pathlib import Path

import typer

from agentrft.cli.console import err, out, safe
from agentrft.cli.recorded import none_found, recorded_episodes


def collect(
    job: str = typer.Argument(help="The id of a stored job, or the beginning of one.", metavar="JOB"),
    out_file: Path = typer.Option(..., "--out", help="Where the demonstrations go (JSONL).", metavar="FILE"),
    min_reward: float = typer.Option(..., help="Keep episodes whose reward is at least this."),
    per_item: int = typer.Option(4, min=1, help="Of one item at most, shortest first."),
    rated: bool = typer.Option(
        False, "--rated", help="Write the other episodes too, as undesirable: a file of preferences for KTO."
    ),
) -> None:
    """Write good episodes as demonstrations, no two of an item with the same calls (rejection sampling)."""
    from agentrft.data.collect import collect_bad, collect_good, demonstration_rows, rated_rows
    from agentrft.data.export import write_rows

    with err().status("reading the episodes …"):
        records, tools_by_item = recorded_episodes(job)
    found = collect_good(records, min_reward=min_reward, per_item=per_item)
    if not found.records:
        rewards = [record.reward for record in records if record.reward is not None]
        best = f"the highest reward of all is {max(rewards):.3f}" if rewards else "none has a reward"
        raise none_found(
            "episodes to collect",
            f"of {found.episodes} on training items none was answered, readable and of reward {min_reward:g} or more "
            f"({best}). Lower --min-reward, or play more episodes",
        )
    source = f"of {found.items} items, from {found.good} good episodes of {found.episodes}"
    if rated:
        bad = collect_bad(records, max_reward=min_reward, per_item=per_item).records
        if not bad:
            raise none_found(
                "episodes to call undesirable", f"all rewards are {min_reward:g} or more. Raise --min-reward"
            )
        write_rows(out_file, rated_rows(found.records, bad, tools_by_item), param="--out")
        text = f"{out_file}: {len(found.records)} desirable conversations {source}; {len(bad)} undesirable"
    else:
        write_rows(out_file, demonstration_rows(found.records, tools_by_item), param="--out")
        text = f"{out_file}: {len(found.records)} demonstrations {source}"
    out().print(safe(text), soft_wrap=True)
