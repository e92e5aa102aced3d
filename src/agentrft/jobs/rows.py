"""A job's rows as the agent gets them: read from the files it names, with its system message put in front."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agentrft.data.preferences import Preference, Rated, read_preferences, read_rated
from agentrft.data.rows import Demonstration, read_demonstrations, read_items
from agentrft.errors import UserError
from agentrft.jobs.spec import JobSpec
from agentrft.types import Item, Message, ToolSpec

_FIELDS = ("train", "validation", "test")


def split_param(split: str) -> str:
    """The job's field that names a split's file, as error messages say it."""
    return f"data.{split}" if split in _FIELDS else f"data.splits.{split}"


def split_path(spec: JobSpec, base_dir: Path, split: str) -> Path:
    """The file of a split; raises UserError when the job names none."""
    given = spec.data.path_of(split)
    if given is None:
        known = [*(name for name in _FIELDS if getattr(spec.data, name)), *spec.data.splits]
        raise UserError(
            f"the job has no split {split!r}; expected one of: {', '.join(known) or 'none'}. Add "
            f"`{split_param(split)}` to the job, or name another split",
            param=split_param(split),
            code="split_missing",
        )
    return base_dir / given


def items_of(spec: JobSpec, base_dir: Path, split: str) -> list[Item]:
    """All items of a split, in file order; raises UserError for a missing file and for the first bad row."""
    path = split_path(spec, base_dir, split)
    return [with_system(item, spec.agent.system) for item in read_items(path, param=split_param(split))]


def demonstrations_of(spec: JobSpec, base_dir: Path) -> list[Demonstration]:
    """All demonstrations; raises UserError when the job names none, and for the first bad row."""
    if spec.data.demonstrations is None:
        raise UserError(
            "supervised fine-tuning needs demonstrations and the job names no file of them; expected "
            "`data.demonstrations`, a JSONL file of whole conversations (docs/job.md)",
            param="data.demonstrations",
            code="demonstrations_missing",
        )
    system = spec.agent.system
    return [
        replace(demonstration, messages=_led(demonstration.messages, system))
        for demonstration in read_demonstrations(base_dir / spec.data.demonstrations)
    ]


def row_tools(spec: JobSpec, base_dir: Path) -> dict[str, tuple[ToolSpec, ...]]:
    """The tools that training items describe themselves, by item id; empty where the job's bindings describe them."""
    items = items_of(spec, base_dir, "train") if spec.data.train else []
    return {item.id: item.tools for item in items if item.tools}


def preferences_of(spec: JobSpec, base_dir: Path, *, held_out: bool = False) -> list[Preference] | list[Rated]:
    """All preferences of a `dpo` job: rated conversations where its loss is `kto`, else pairs.

    With `held_out` those of `data.preferences_validation`, none where the job names no such file. Raises UserError when
    the job names no preferences, and for the first bad row.
    """
    param = "data.preferences_validation" if held_out else "data.preferences"
    file = spec.data.preferences_validation if held_out else spec.data.preferences
    if file is None:
        if held_out:
            return []
        raise UserError(
            "preference optimisation needs preferences and the job names no file of them; expected "
            "`data.preferences`, a JSONL file (docs/preferences.md); `agentrft pairs` makes one from a job's episodes",
            param=param,
            code="preferences_missing",
        )
    system, path = spec.agent.system, base_dir / file
    if spec.method.dpo.loss.type == "kto":
        return [_led_rated(rated, system) for rated in read_rated(path, param=param)]
    return [
        replace(preference, prompt=_led(preference.prompt, system))
        for preference in read_preferences(path, param=param)
    ]


def _led_rated(rated: Rated, system: str | None) -> Rated:
    demonstration = rated.demonstration
    return replace(rated, demonstration=replace(demonstration, messages=_led(demonstration.messages, system)))


def with_system(item: Item, system: str | None) -> Item:
    """The item with the job's system message in front, unless it has one of its own."""
    return replace(item, messages=_led(item.messages, system))


def _led(messages: tuple[Message, ...], system: str | None) -> tuple[Message, ...]:
    if not system or any(message.role == "system" for message in messages):
        return messages
    return (Message(role="system", content=system), *messages)
