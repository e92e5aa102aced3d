"""What a climb of the whole ladder found: as JSON, as a report for people, as an exit code."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrft.jobs.service import StoredJob
from agentrft.ladder.decided import next_steps
from agentrft.ladder.rules import Verdict
from agentrft.ladder.rungs import LABELS, Rung, gain_of
from agentrft.ladder.whole_plan import WholePlan
from agentrft.report.decide import VERDICTS
from agentrft.report.model import NextStep, Report, RungLine, Stage, StageFigures
from agentrft.report.wording import bounds, duration, number
from agentrft.runtime.machine import cores, versions
from agentrft.runtime.summary import compare_episodes, curves, settings_of
from agentrft.store import SqlStore
from agentrft.writing import write_whole

SCHEMA = 1
"""Of `to_json`'s document; raised when a field changes its meaning."""
REPORT = "report.json"
BUDGET, COMPARED = "budget", "compared"
"""How a climb ends where no verdict ends it."""

_ENDS = {BUDGET: "the budget is spent", COMPARED: "the methods were compared", **VERDICTS}
_NO_RELIABLE_CHANGE, _TOO_LITTLE_DATA, _BLOCKED = 3, 4, 5
_MEND = (Verdict.FIX_GRADER.value, Verdict.FIX_ENVIRONMENT.value)
_LACKS = (Verdict.TOO_LITTLE_DATA.value, Verdict.COLLECT.value, BUDGET)
_STOPS = (*_MEND, *_LACKS, Verdict.DONE.value)
"""Endings that say what to do next; the others are methods that the climb has been through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeResult:
    """What there is after a climb, complete or not."""

    plan: WholePlan
    job: StoredJob
    """The climb's own: figures and report belong to it."""
    rungs: Sequence[Rung]
    optimisation: Mapping[str, Any] | None
    """Report of the search for edits; None where none was made."""
    ending: str | None
    """The verdict that ended it, `budget`, or `compared`; None while it is not complete."""
    stopped: str | None
    """Why it ended early; None when it is complete."""
    notes: Sequence[str]
    episodes: Mapping[str, int]
    """Piece → episodes that it played, or found played."""
    wall_s: float
    folder: Path
    """The climb's own files; the report belongs there."""

    @property
    def recommended(self) -> Rung | None:
        """The first rung that no later one is reliably better than; None before anything is measured.

        Rungs are taken in their order, so that of two that do as well it is the cheaper one.
        """
        best: Rung | None = None
        for rung in self.rungs:
            if rung.measured and (best is None or gain_of(rung, best).low > 0):
                best = rung
        return best

    @property
    def exit_code(self) -> int:
        """0 where a rung is reliably better, or nothing is left to do or to go on with; 3, 4, 5 as docs/cli.md says."""
        if self.ending in _MEND:
            return _BLOCKED
        best = self.recommended
        if self.stopped or self.ending == Verdict.DONE or (best is not None and best.name != "base"):
            return 0
        return _TOO_LITTLE_DATA if self.ending in _LACKS else _NO_RELIABLE_CHANGE

    def to_json(self) -> dict[str, Any]:
        """Every figure; docs/climb.md has the fields."""
        best = self.recommended
        return {
            "schema": SCHEMA,
            "job": self.plan.typed,
            "id": self.job.id,
            "seed": self.plan.spec.seed,
            "model": self.plan.spec.model,
            "splits": list(self.plan.splits),
            "rungs": [self._rung_json(rung) for rung in self.rungs],
            "optimisation": self.optimisation,
            "ending": self.ending,
            "stopped": self.stopped,
            "recommended": best.name if best else None,
            "recommendation": self.recommendation(),
            "budget": {"episodes": self.plan.episodes, "spent": self._spent},
            "episodes": dict(self.episodes),
            "wall_s": self.wall_s,
            "notes": list(self.notes),
            "next_steps": [{"what": step.what, "command": step.command} for step in self.next_steps()],
        }

    def keep(self, store: SqlStore) -> None:
        """Keep the report with the climb's stored job, and in its folder."""
        document = self.to_json()
        kept = {"key": self.plan.key, "folder": str(self.folder), "report": document}
        store.update_job(self.job.id, {"climb": kept})
        for folder in (self.folder, self.job.folder):
            write_whole(folder / REPORT, json.dumps(document, indent=2, allow_nan=False) + "\n")

    def report(self, store: SqlStore) -> Report:
        """For people: terminal and page are made from it."""
        best = self.recommended
        trained = next((rung.job for rung in self.rungs if rung.name == "reinforcement" and rung.job), None)
        steps, validations = curves(store, trained) if trained else ([], [])
        comparisons = []
        if best is not None and best.name != "base":
            sides = [("the job as it is", self.job.id, "base"), (LABELS[best.name], self.job.id, best.name)]
            comparisons = compare_episodes(store, sides[0], sides[1])
        return Report(
            kind=f"agentrft climb · {self.plan.name}",
            headline=self.headline(),
            lede=self._lede(),
            facts=self._facts(),
            stages=[_stage(rung) for rung in self.rungs if rung.measured],
            gains=self._gains(),
            rungs=[self._line(rung) for rung in self.rungs if rung.measured],
            steps=steps,
            validations=validations,
            best_step=next((m.best_step for r in self.rungs if r.job == trained for m in r.measured.values()), None),
            comparisons=comparisons,
            next_steps=self.next_steps(),
            notes=[*([f"This climb is not complete: {self.stopped}."] if self.stopped else []), *self.notes],
            settings=settings_of(self.plan.spec),
            versions=versions(),
        )

    def headline(self) -> str:
        """One sentence; "raised" only where the interval is above zero."""
        best, base = self.recommended, self.rungs[0] if self.rungs else None
        if best is None or base is None:
            return f"The climb of {self.plan.name} stopped before anything was measured"
        if best is base:
            if self.stopped or self.ending in _STOPS:
                return f"{self.plan.name}: {self.recommendation()}"
            return f"No rung is reliably better than {self.plan.name} as it is"
        gain, split = gain_of(best, base), next(iter(best.measured))
        before, after = (rung.measured[split].figures().reward.mean for rung in (base, best))
        change = f"from {number(before)} to {number(after)}"
        return f"The reward on {gain.n_items} unseen items rose {change}, {LABELS[best.name]}"

    def recommendation(self) -> str:
        """What to do, in one sentence."""
        best = self.recommended
        if self.stopped:
            return f"go on with the climb ({self.stopped})"
        kept = f"use {best.name} ({LABELS[best.name]})" if best is not None and best.name != "base" else ""
        if self.ending in _STOPS:
            further = _ENDS[self.ending]
        elif kept:
            further = (
                "" if self.ending == COMPARED else f"the last decision would go on with {_ENDS[self.ending or '']}"
            )
        else:
            further = "keep the job as it is: nothing that was tried is reliably better"
        return "; ".join(part for part in (kept, further) if part)

    def next_steps(self) -> list[NextStep]:
        """Commands that make sense now."""
        again = self.plan.command or f"agentrft climb {self.plan.typed}"
        if self.stopped:
            return [NextStep(what="go on where this stopped", command=again)]
        steps, best = [], self.recommended
        edits = self._edits(best)
        if edits is not None:
            steps.append(NextStep(what="write the adopted edits into the job", command=f"agentrft apply {edits}"))
        if best is not None and best.model is not None:
            # The stored job has the edits, whether or not they were applied.
            job = self.plan.typed if edits is None else best.job
            steps.append(NextStep(what="ask the agent yourself", command=f"agentrft chat {best.model} --job {job}"))
        if self.ending == BUDGET:
            steps.append(NextStep(what="go further", command=f"{again} --episodes {2 * self.plan.episodes}"))
        elif self.ending in _STOPS:
            commands = next_steps(Verdict(self.ending), self.plan.typed)
            steps += [NextStep(what=_ENDS[self.ending], command=command) for command in commands]
        return steps

    @property
    def _spent(self) -> int:
        return sum(n for piece, n in self.episodes.items() if piece == "optimise" or piece.startswith("diagnose"))

    def _edits(self, rung: Rung | None) -> str | None:
        """Id of the optimisation whose edits the rung plays under."""
        by_name = {one.name: one for one in self.rungs}
        while rung is not None and rung.name != "optimised":
            rung = by_name.get(rung.over or "")
        return rung.job if rung is not None else None

    def _before(self, rung: Rung) -> Rung | None:
        return next((one for one in self.rungs if one.name == rung.over and one.measured), None)

    def _gains(self) -> list[Any]:
        pairs = [(rung, before) for rung in self.rungs if rung.measured and (before := self._before(rung))]
        return [
            (f"{rung.name} over {before.name}, {split.replace('_', ' ')}", gain_of(rung, before, split))
            for rung, before in pairs
            for split in rung.measured
        ]

    def _line(self, rung: Rung) -> RungLine:
        before, decision = self._before(rung), rung.decision
        gain = gain_of(rung, before) if before else None
        made: dict[str, Any] = {"over": rung.over, "gain": gain, "episodes": rung.episodes, "wall_s": rung.wall_s}
        if decision is None:
            return RungLine(name=rung.name, **made)
        decided, stability = VERDICTS[decision["verdict"]], decision["stability"]
        followed = any(one.name == "optimised" and one.over == rung.name for one in self.rungs)
        if decision["verdict"] == Verdict.OPTIMISE and not followed:
            otherwise = decision["otherwise"]
            decided += f"; but for that {VERDICTS[otherwise['verdict']]} (rule {otherwise['rule']})"
        return RungLine(
            name=rung.name,
            **made,
            decided=decided,
            why=f"rule {decision['rule']}: {decision['why']}",
            numbers="; ".join(condition["text"] for condition in decision["conditions"]),
            sure=f"{stability['share']:.0%}" + (", borderline" if stability["borderline"] else ""),
        )

    def _lede(self) -> str:
        base, best = (self.rungs[0] if self.rungs else None), self.recommended
        said = f"Recommendation: {self.recommendation()}."
        if best is None or base is None or best is base:
            return said
        gain = gain_of(best, base)
        sure = f"Paired gain over the job as it is: {number(gain.mean, sign='+')}, 95 % interval {bounds(gain)}."
        flatters = " Methods were chosen among on these items, so the best one's figure flatters it a little."
        return f"{sure} {said}{flatters if self.ending == COMPARED else ''}"

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("model", Path(self.plan.spec.model).name),
            ("job", self.job.id),
            ("seed", str(self.plan.spec.seed)),
            ("budget", f"{self._spent} of {self.plan.episodes} episodes"),
            ("all episodes", str(sum(self.episodes.values()))),
            ("time", f"{duration(self.wall_s)} on {cores()} cores"),
            ("made", datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")),
        ]

    def _rung_json(self, rung: Rung) -> dict[str, Any]:
        before = self._before(rung)
        names = ("reward", "success", "calls", "parse_rate")
        figures = {split: measured.figures() for split, measured in rung.measured.items()}
        gains = {split: gain_of(rung, before, split).to_json() for split in rung.measured} if before else {}
        return {
            **{name: getattr(rung, name) for name in ("name", "over", "model", "job", "bundle", "episodes", "wall_s")},
            "label": LABELS[rung.name],
            "splits": {
                split: {
                    **{name: getattr(one, name).to_json() for name in names},
                    "stop_reasons": dict(one.stop_reasons),
                }
                for split, one in figures.items()
            },
            "gain": gains,
            "step": next((measured.best_step for measured in rung.measured.values()), None),
            "decision": rung.decision,
        }


def _stage(rung: Rung) -> Stage:
    figures: dict[str, StageFigures] = {split: measured.figures() for split, measured in rung.measured.items()}
    return Stage(name=rung.name, label=LABELS[rung.name], figures=figures, wall_s=rung.wall_s)
