"""A job's rows as the agent gets them: read from the files it names, behind its system message and worked examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agentrft.data.preferences import Preference, Rated, read_preferences, read_rated
from agentrft.data.rows import Demonstration, read_demonstrations, read_items
from agentrft.errors import UserError
from agentrft.jobs.spec import JobSpec
from agentrft.tools import ToolDoc
from agentrft.tools.docs import documented
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
    lead = Lead.of(spec, base_dir)
    return [lead.item(item) for item in read_items(path, param=split_param(split))]


def demonstrations_of(spec: JobSpec, base_dir: Path, *, held_out: bool = False) -> list[Demonstration]:
    """All demonstrations, each a single episode; with `held_out` those of `data.demonstrations_validation`, if any.

    Raises UserError when the job names no demonstrations, and for the first bad row.
    """
    param = "data.demonstrations_validation" if held_out else "data.demonstrations"
    file = spec.data.demonstrations_validation if held_out else spec.data.demonstrations
    if file is None:
        if held_out:
            return []
        raise UserError(
            "supervised fine-tuning needs demonstrations and the job names no file of them; expected "
            "`data.demonstrations`, a JSONL file of whole conversations (docs/job.md)",
            param=param,
            code="demonstrations_missing",
        )
    lead = Lead.of(spec, base_dir)
    whole = read_demonstrations(base_dir / file, param=param)
    return [lead.demonstration(part) for one in whole for part in episodes_of(one)]


def episodes_of(demonstration: Demonstration) -> list[Demonstration]:
    """A conversation as one demonstration for each question that is answered by replies to learn.

    Each has everything before its question as context, so that together they teach every reply once.
    """
    messages = demonstration.messages
    by_reply = iter(demonstration.learnt)
    learnt = [message.role == "assistant" and next(by_reply, True) for message in messages]
    asks = [message.role in ("system", "user") for message in messages]
    # What is asked after a reply begins another episode.
    ends = [*(i for i in range(1, len(messages)) if asks[i] and not asks[i - 1]), len(messages)]
    parts = [(begin, end) for begin, end in zip([0, *ends], ends, strict=False) if any(learnt[begin:end])]
    if len(parts) == 1 and parts[0][1] == len(messages):
        return [demonstration]
    return [
        replace(
            demonstration,
            id=f"{demonstration.id}/{number}",
            messages=messages[:end],
            learnt=tuple(learnt[i] and i >= begin for i in range(end) if messages[i].role == "assistant"),
        )
        for number, (begin, end) in enumerate(parts)
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
    lead, path = Lead.of(spec, base_dir), base_dir / file
    if spec.method.dpo.loss.type == "kto":
        rated = read_rated(path, param=param)
        return [replace(one, demonstration=lead.demonstration(one.demonstration)) for one in rated]
    return [lead.preference(preference) for preference in read_preferences(path, param=param)]


@dataclass(frozen=True, slots=True)
class Lead:
    """What every task is put behind: the job's system message, worked examples, and its words for the rows' tools."""

    system: str | None = None
    demos: tuple[Message, ...] = ()
    docs: Mapping[str, ToolDoc] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: JobSpec, base_dir: Path) -> Lead:
        """The job's; raises UserError for examples that cannot be read."""
        agent = spec.agent
        if agent.demos is None:
            return cls(agent.system, docs=agent.tool_docs)
        examples = read_demonstrations(base_dir / agent.demos, param="agent.demos")
        said = (message for example in examples for message in example.messages if message.role != "system")
        return cls(agent.system, tuple(said), agent.tool_docs)

    def before(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The conversation behind the lead; a system message of its own stands in place of the job's."""
        own = tuple(message for message in messages if message.role == "system")
        if self.system and not own:
            own = (Message(role="system", content=self.system),)
        elif not self.demos:
            return messages
        return (*own, *self.demos, *(message for message in messages if message.role != "system"))

    def tools(self, specs: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
        """Tools that a row lists, as the model is told about them; raises UserError for words that do not fit."""
        return tuple(spec for spec in documented(specs, self.docs) if not self.docs.get(spec.name, _PLAIN).hidden)

    def item(self, item: Item) -> Item:
        """The item behind the lead."""
        return replace(item, messages=self.before(item.messages), tools=self.tools(item.tools))

    def demonstration(self, demonstration: Demonstration) -> Demonstration:
        """The demonstration behind the lead, of which nothing is learnt."""
        n_shown = sum(message.role == "assistant" for message in self.demos)
        n_own = sum(message.role == "assistant" for message in demonstration.messages)
        learnt = demonstration.learnt
        if n_shown:
            learnt = (*(False,) * n_shown, *(learnt or (True,) * n_own))
        messages, tools = self.before(demonstration.messages), self.tools(demonstration.tools)
        return replace(demonstration, messages=messages, tools=tools, learnt=learnt)

    def preference(self, preference: Preference) -> Preference:
        """The preference behind the lead."""
        return replace(preference, prompt=self.before(preference.prompt), tools=self.tools(preference.tools))


_PLAIN = ToolDoc()
