"""What is wrong with an episode of an example task, from knowledge that detectors do not have: the task's whole world.

An injected fault says itself where it showed. A small model also errs by itself; these functions know the row's data
(every file, parcel, right answer) and what the tools' own code rejected, and so tell which classes are there beside
the injected one. `bearable` are classes that an injected fault entails, or for which there is no independent truth:
they count neither for nor against a detector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from agentrft.protocols import EpisodeRecord
from agentrft.types import Item, StopReason, ToolCall, ToolResult

_ENTAILED: Mapping[str, frozenset[str]] = {
    "env_fault": frozenset({"early_stop", "ignored_output", "truncated_evidence", "unsafe_write", "missing_step"}),
    "timeout": frozenset({"env_fault", "early_stop", "missing_step"}),
    "task_defect": frozenset({"hallucinated_ref", "bad_args"}),
    "bad_args": frozenset({"early_stop", "missing_step"}),
    "unknown_tool": frozenset({"parse_error", "early_stop", "missing_step"}),
    "early_stop": frozenset({"missing_step"}),
    "missing_step": frozenset({"early_stop"}),
    "wrong_tool": frozenset({"early_stop", "missing_step"}),
    "truncated_evidence": frozenset({"early_stop"}),
    "unsafe_write": frozenset({"missing_step"}),
    "loop": frozenset({"early_stop", "missing_step", "ignored_output"}),
    "parse_error": frozenset({"unknown_tool", "refusal_or_empty", "early_stop", "missing_step"}),
    "refusal_or_empty": frozenset({"early_stop", "missing_step"}),
    "hallucinated_ref": frozenset({"unsafe_write", "bad_args", "missing_step", "early_stop"}),
}


@dataclass(frozen=True, slots=True)
class Truth:
    """Of one episode."""

    injected: frozenset[str]
    natural: frozenset[str]
    bearable: frozenset[str]


def truth_of(task: str, record: EpisodeRecord, item: Item, injected: Sequence[str], run: Mapping[str, Any]) -> Truth:
    """The classes of one episode; `run` has the raw outputs (`raw`) and what the tools' code rejected (`messages`)."""
    natural, bearable = set[str](), set[str]()
    episode = record.episode
    _from_stop(record, natural, bearable)
    for turn in episode.turns:
        if turn.malformed is not None:
            is_empty = not (turn.reply.content or "").strip()
            natural.add("refusal_or_empty" if is_empty else "parse_error")
            bearable.add("unknown_tool")
        for call, result in zip(turn.reply.tool_calls, turn.results, strict=False):
            if result.is_error and result.tries:
                natural |= _of_error(task, item, call, result, run["messages"])
            if task == "parcels" and call.name == "move" and not result.is_error:
                natural |= _of_move(item, call)
    natural |= _of_answer(task, record, item, run)
    bearable |= _repeats(record) | _swaps(record)
    injected_now = frozenset(injected)
    for kind in injected_now | natural:
        bearable |= _ENTAILED.get(kind, frozenset())
    return Truth(injected_now, frozenset(natural), frozenset(bearable))


_OLD_NAMES = ("grep", "find", "convert", "sql")


def of_setting(fault: str, kind: str, record: EpisodeRecord, truth: Truth) -> Truth:
    """The truth of an episode whose fault lies in a setting: it shows where limit, cut, name or schema bites."""
    turns = record.episode.turns
    if fault == "twin" and truth.injected and sum(len(turn.reply.tool_calls) for turn in turns) > 1:
        # It went on to the right tools: a detour that it got over, not another tool in their place.
        return Truth(frozenset(), truth.natural, truth.bearable | truth.injected)
    if fault in ("few turns", "short replies", "short context", "buried"):
        shows = kind in truth.natural
    elif fault == "schema":
        shows = any(r.is_error and not r.tries and t.reply.tool_calls for t in turns for r in t.results)
    elif fault == "renamed":
        shows = any(t.malformed and (t.reply.content or "").split(" ")[0] in _OLD_NAMES for t in turns)
    else:
        return truth
    injected = frozenset({kind}) if shows else frozenset()
    bearable = truth.bearable | (_ENTAILED.get(kind, frozenset()) if shows else frozenset())
    return Truth(injected, truth.natural, bearable)


def _from_stop(record: EpisodeRecord, natural: set[str], bearable: set[str]) -> None:
    stop = record.episode.stop_reason
    if stop in (StopReason.MAX_TURNS, StopReason.MAX_REPLY_TOKENS):
        natural.add("no_stop")
    if stop is StopReason.MAX_EPISODE_TOKENS:
        natural.add("context_overflow")
    if stop is StopReason.ANSWERED and not (record.episode.answer or "").strip():
        natural.add("refusal_or_empty")


def _of_error(task: str, item: Item, call: ToolCall, result: ToolResult, messages: Sequence[str]) -> set[str]:
    """What the tool's own code rejected: a thing that is not in this world, or arguments of the wrong form."""
    said = result.output.removeprefix("error: ")
    if not any(message[:40] in said or said[:40] in message for message in messages):
        return set()
    if task == "filenav" and re.match(r"no (file|folder|path)", said):
        known = " ".join(item.fields["tree"]).replace("/", " ").split() + list(item.fields["envs"])
        words = re.findall(r"[\w-]+", call.arguments.split('"path":')[-1].removesuffix("}").replace(".conf", ""))
        return {"hallucinated_ref"} if any(word not in known for word in words) else set()
    if task == "parcels" and said.startswith("no parcel"):
        return {"hallucinated_ref"} if re.search(r'"id": "P\d+"', call.arguments) else set()
    return set() if "already" in said else {"bad_args"}


def _of_move(item: Item, call: ToolCall) -> set[str]:
    right = f'"{item.fields["parcel"]}"' in call.arguments and f'"{item.fields["to"]}"' in call.arguments
    return set() if right else {"unsafe_write"}


def _of_answer(task: str, record: EpisodeRecord, item: Item, run: Mapping[str, Any]) -> set[str]:
    """Where the right answer was: shown and not said, or in the whole output and not in what was shown of it."""
    episode, right = record.episode, str(item.fields["answer"])
    shown = [r.output for turn in episode.turns for r in turn.results if not r.is_error]
    word = re.compile(rf"(?<![\w.]){re.escape(right)}(?![\w]|\.\d)")
    is_shown = any(word.search(text) for text in shown)
    found = set[str]()
    if episode.stop_reason is StopReason.ANSWERED:
        answer = (episode.answer or "").strip()
        if is_shown and answer and not word.search(answer):
            found.add("ignored_output")
        if not any(turn.reply.tool_calls or turn.malformed for turn in episode.turns):
            found.add("early_stop")
        if task == "parcels" and not any(c.name == "move" for turn in episode.turns for c in turn.reply.tool_calls):
            found.add("missing_step")
    if not is_shown and any(word.search(raw) for _, raw in run["raw"]):
        found.add("truncated_evidence")
    if not is_shown and _in_what_the_tool_left_out(task, episode.turns, item, word):
        found.add("truncated_evidence")
    return found


def _in_what_the_tool_left_out(task: str, turns: Sequence[Any], item: Item, word: re.Pattern[str]) -> bool:
    """The tools of filenav and parcels show three lines; what the others say is known from the row."""
    cut = [
        call
        for turn in turns
        for call, result in zip(turn.reply.tool_calls, turn.results, strict=False)
        if re.search(r"\[\d+ more\]", result.output)
    ]
    if task == "parcels":
        lines = [f"{k} {v}" for k, v in item.fields["parcels"].items()]
        return any(_text_of(call) in line and word.search(line) for call in cut for line in lines)
    if task == "filenav":
        key, service = item.fields["key"], item.fields["service"]
        return any(_text_of(call) in f"{service}.{key} = {item.fields['answer']}" for call in cut)
    return False


def _text_of(call: ToolCall) -> str:
    found = re.search(r'"text":\s*"([^"]*)"', call.arguments)
    return found[1] if found else "\0"


def _swaps(record: EpisodeRecord) -> set[str]:
    """One tool refuses and the next one answers: a better choice, or luck; nobody knows."""
    turns = record.episode.turns
    pairs = [
        (a, b) for a, b in pairwise(turns) if a.results and b.results and a.reply.tool_calls and b.reply.tool_calls
    ]
    names = [(a.reply.tool_calls[0].name, b.reply.tool_calls[0].name, a.results[0], b.results[0]) for a, b in pairs]
    return {"wrong_tool"} if any(a != b and x.is_error and not y.is_error for a, b, x, y in names) else set()


def _repeats(record: EpisodeRecord) -> set[str]:
    """A model that repeats itself without being made to: no cause of it is known, so it is nobody's truth."""
    calls = [(c.name, c.arguments) for turn in record.episode.turns for c in turn.reply.tool_calls]
    most = max((calls.count(call) for call in calls), default=0)
    return ({"loop"} if most >= 3 else set()) | ({"ignored_output"} if most >= 2 else set())
