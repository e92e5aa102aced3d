"""Static checks of a reinforcement job's credit and penalties: its functions load, and what it names is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agentrft.credit.discrimination import MIN_EPISODES
from agentrft.credit.spec import InformationGain, Tree, TurnReturns
from agentrft.errors import UserError
from agentrft.jobs.spec import JobSpec
from agentrft.train.played import Crediting
from agentrft.train.reference_answers import reference_of
from agentrft.types import Item


def check_credit(spec: JobSpec, base_dir: Path, splits: Mapping[str, Sequence[Item]]) -> None:
    """Raise UserError when the job's own credit does not load, or cannot be checked before it is trained on."""
    credit = spec.training.credit
    Crediting.of(credit, base_dir)
    if isinstance(credit, Tree):
        _check_forks(credit, spec.agent.limits.max_turns)
    if isinstance(credit, InformationGain):
        _check_reference(credit.reference, splits.get("train", ()))
    if not isinstance(credit, TurnReturns) or credit.force or spec.method.reinforcement is None:
        return
    samples = spec.method.reinforcement.hyperparameters.eval_samples
    episodes = len(splits.get("validation", ())) * samples
    if episodes < MIN_EPISODES or samples < 2:
        raise UserError(
            f"turn rewards are compared with grades on the first validation, which has {episodes} episodes, {samples} "
            f"of each item; expected at least {MIN_EPISODES}, 2 of each item. Add items to `data.validation`, raise "
            "`eval_samples`, or set `training.credit.force: true`",
            param="training.credit",
            code="invalid_credit",
        )


def _check_forks(credit: Tree, max_turns: int) -> None:
    late = [turn for turn in credit.at if turn > max_turns]
    if late:
        raise UserError(
            f"training.credit.at branches before turn {late[0]}, which no episode reaches; expected at most "
            f"`agent.limits.max_turns` ({max_turns}). Branch earlier",
            param="training.credit.at",
            code="invalid_credit",
        )


def _check_reference(name: str, items: Sequence[Item]) -> None:
    without = next((item for item in items if not reference_of(item, name)), None)
    if without is not None:
        got = repr(without.fields[name])[:40] if name in without.fields else "no such field"
        raise UserError(
            f"training.credit.reference names the field `{name}`, and training row {without.line} has {got} there; "
            f"expected a text or a number in every training row. Fields of this row: "
            f"{', '.join(sorted(without.fields)) or 'none'}",
            param="training.credit.reference",
            code="invalid_credit",
        )


def check_tool_costs(spec: JobSpec, names: Sequence[str]) -> None:
    """Raise UserError when a call is priced of a tool that the job does not bind."""
    costs = spec.training.penalties.tools
    unknown = sorted(costs.each.keys() - set(names)) if costs is not None else []
    if unknown:
        raise UserError(
            f"training.penalties.tools prices the tool {unknown[0]}, which the job does not bind; expected one of "
            f"{', '.join(names) or 'none'}. Mend the name",
            param="training.penalties.tools",
            code="unknown_tool",
        )
