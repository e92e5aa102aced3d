"""`agentrft apply ID`: write what an optimisation adopted into the job file, all of it or hunk by hunk."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from agentrft.cli.console import note, out, safe


def apply(
    found: str = typer.Argument(help="The id that `agentrft optimise` printed, or its changes.json.", metavar="ID"),
    only: str | None = typer.Option(None, help="These hunks, by their ids: h1,h3.", metavar="IDS"),
    everything: bool = typer.Option(False, "--all", help="All hunks, without asking."),
    force: bool = typer.Option(False, help="Also when the job file has changed since it was optimised."),
) -> None:
    """Change the job file; without --all or --only each hunk is shown and asked about."""
    from agentrft.errors import UserError
    from agentrft.ladder.optimise import edit_of
    from agentrft.optimise.patch import edited_text, unified_diff

    document = _changes(found)
    path = Path(document["job"])
    if not path.is_file():
        raise UserError(f"the job file {path} is gone; put it back, or apply the changes.patch by hand")
    text = path.read_text(encoding="utf-8")
    if hashlib.sha256(text.encode()).hexdigest() != document["job_sha256"] and not force:
        raise UserError(
            f"{path} has changed since it was optimised, so the figures may not hold for it; optimise it again, or "
            "give --force to apply the changes all the same",
            code="job_changed",
        )
    chosen = [hunk for hunk in _chosen(document["hunks"], only) if everything or only or _wanted(hunk)]
    if not chosen:
        note("nothing was applied")
        return
    edits = [(hunk["id"], edit_of(hunk)) for hunk in chosen]
    after = edited_text(text, [edit for _, edit in edits])
    _write(path, after, [file for _, edit in edits for file in edit.files.items()])
    for line in unified_diff(path.name, text, after, edits).splitlines():
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        out().print(safe(line, style), soft_wrap=True)
    note(f"changed {path}; `agentrft check {path}` says whether it still fits together")


def _changes(found: str) -> dict[str, Any]:
    from agentrft.errors import UserError
    from agentrft.jobs.service import find_job, job_folder
    from agentrft.ladder.optimise import CHANGES
    from agentrft.store import open_store

    path = Path(found)
    if not path.is_file():
        with closing(open_store()) as store:
            path = job_folder(find_job(store, found)) / CHANGES
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(
            f"there is no {CHANGES} of {found}; expected the id of an optimisation that adopted something"
        ) from None


def _chosen(hunks: list[dict[str, Any]], only: str | None) -> list[dict[str, Any]]:
    from agentrft.errors import UserError

    if only is None:
        return hunks
    wanted = [one.strip() for one in only.split(",") if one.strip()]
    known = {hunk["id"]: hunk for hunk in hunks}
    unknown = [one for one in wanted if one not in known]
    if unknown or not wanted:
        raise UserError(
            f"there is no hunk {', '.join(map(repr, unknown)) or repr(only)}; expected some of {', '.join(known)}",
            param="--only",
        )
    return [known[one] for one in wanted]


def _wanted(hunk: dict[str, Any]) -> bool:
    out().print(Text.assemble((hunk["id"], "bold"), f"  {hunk['component']}: {hunk['why']}"), soft_wrap=True)
    for place, value in hunk["sets"]:
        out().print(safe(f"    {'.'.join(place)} = {json.dumps(value, ensure_ascii=False)}"), soft_wrap=True)
    for place, _, sentence in hunk["adds"]:
        out().print(safe(f"    {'.'.join(place)} + {sentence}"), soft_wrap=True)
    return typer.confirm("apply it?", default=True)


def _write(path: Path, text: str, files: list[tuple[str, str]]) -> None:
    from agentrft.errors import UserError
    from agentrft.writing import write_whole

    for name, contents in files:
        target = path.parent / name
        if target.exists() and target.read_text(encoding="utf-8") != contents:
            raise UserError(f"{target} is there already, with other contents; move it away first")
        target.write_text(contents, encoding="utf-8")
    write_whole(path, text)
