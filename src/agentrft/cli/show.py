"""`agentrft show EPISODE`: one stored episode as a readable transcript, with the credit of every turn."""

from __future__ import annotations

import typer
from rich.text import Text

from agentrft.cli.console import out, safe


def show(
    episode: str = typer.Argument(help="An episode's id, or the beginning of one.", metavar="EPISODE"),
    full: bool = typer.Option(False, help="Do not cut long tool results."),
) -> None:
    """Show what the agent was asked, what it called, what came back, its answer, grade, reward and credit."""
    from agentrft.report.credit import credit_texts, reward_text
    from agentrft.report.model import Shown
    from agentrft.report.terminal import transcript_view
    from agentrft.report.text import printable
    from agentrft.store import open_store

    store = open_store()
    try:
        record = store.get_episode(store.find_episode(episode))
    finally:
        store.close()
    place = f"{record.stage} on {record.extra.get('split', record.phase)}, step {record.episode.step}"
    title = f"{record.episode.id}\n{place}, item {record.episode.item_id}, member {record.episode.member}"
    if origin := record.extra.get("continues"):
        title += f"\ngoes on from {origin['from']} turn {origin['turn']} of {origin['episode']}"
    credit = record.extra.get("credit", {})
    shown = Shown(label=printable(title), episode=record.episode, reward=record.reward, credit=credit_texts(credit))
    out().print(transcript_view(shown, max_lines=10_000 if full else 12))
    grade = record.grade
    if grade.value is None:
        out().print(safe(f"no grade: {grade.reason}", "yellow"))
        if grade.traceback:
            out().print(safe(grade.traceback, "dim"))
    else:
        parts = "".join(f", {printable(name)} {value:.3f}" for name, value in grade.sub_grades.items())
        advantage = "" if record.advantage is None else f", advantage {record.advantage:+.2f}"
        out().print(Text(f"grade {grade.value:.3f}{parts}{advantage}", style="dim"))
        if made_of := reward_text(credit):
            out().print(Text(f"reward: {printable(made_of)}", style="dim"))
