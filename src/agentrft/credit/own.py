"""A user's own functions: credit of a group, or the reward of a turn, named by `file.py:function`.

The code runs in this process with all its rights: it is the user's own, not the model's.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from agentrft.credit.group_mean import group_mean
from agentrft.credit.keys import calls_of
from agentrft.credit.view import Credited, GroupView, Parts
from agentrft.errors import UserError
from agentrft.types import Group, Turn

_PARAM = "training.credit"


def own_credit(groups: Sequence[GroupView], function: Callable[..., Any], target: str) -> Credited:
    """What `function(group)` gives for each group: for each member one number, or a list with one for each turn.

    The numbers are in units of reward, centred as the function thinks right. Members without a reward get 0 whatever it
    says. Raises UserError (`invalid_credit`) when it raises, or gives other shapes or numbers that are not finite.
    """
    return Credited(
        parts_I_G_K=[_own_parts(group, _called(function, target, group), target) for group in groups],
        basis_I_G=[group_mean(group.rewards_G) for group in groups],
    )


def own_turn_rewards(group: Group, function: Callable[..., Any], target: str) -> list[list[float]]:
    """For every member the rewards of its turns: `function(item, turn)`, both plain dicts.

    `item` holds the row's fields; `turn` holds `index`, `of` (turns of the episode), `text`, `calls`, `results`
    (texts), `errors` (which results are the model's mistakes) and `malformed`. Raises UserError (`invalid_credit`) when
    the function raises or gives something other than a finite number.
    """
    item = dict(group.item.fields)
    return [
        [
            _number(_called(function, target, copy.deepcopy(item), _turn(turn, index, len(episode.turns))), target)
            for index, turn in enumerate(episode.turns)
        ]
        for episode in group.episodes
    ]


def load_function(target: str, base_dir: Path) -> Callable[..., Any]:
    """The function that `file.py:NAME` names, the file relative to `base_dir`; it is run now.

    Raises UserError: `credit_not_found` for a missing file or name, `invalid_credit` for a file that raises or a name
    that is no function.
    """
    file_name, _, name = target.rpartition(":")
    path = (base_dir / file_name).resolve()
    if not path.is_file():
        found = f"no file {path}; the path is relative to the job file, as in `mycredit.py:function`"
        raise UserError(f"credit {target}: {found}", param=_PARAM, code="credit_not_found")
    module = _run(path, target)
    function = getattr(module, name, None)
    if function is None:
        functions = {key: value for key, value in vars(module).items() if inspect.isfunction(value)}
        own = [key for key, value in functions.items() if value.__module__ == module.__name__ and key[0] != "_"]
        found = f"{path} has no {name}; it has {', '.join(own) or 'no public functions'}"
        raise UserError(f"credit {target}: {found}", param=_PARAM, code="credit_not_found")
    if not callable(function) or inspect.isclass(function) or inspect.iscoroutinefunction(function):
        found = f"{name} is {type(function).__name__}" if not callable(function) else f"{name} is async or a class"
        raise _invalid(target, f"{found}, expected a plain function; write `def {name}(...)`")
    return function


def _run(path: Path, target: str) -> ModuleType:
    # The name is made from the path so that two jobs' `mycredit.py` never answer for each other.
    module_name = f"agentrft_credit_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up while the file runs
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise _invalid(target, f"{_crash(path, error)} on import; run `python {path}` to see it") from error
    return module


def _called(function: Callable[..., Any], target: str, *arguments: object) -> Any:
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        raise _invalid(target, f"it {_crash('', error)}; mend it, and try it on a saved group") from error


def _own_parts(group: GroupView, given: Any, target: str) -> list[list[Parts]]:
    members = _listed(given, len(group.rewards_G), "one entry for each member", target)
    credit_G_K = [
        _listed(credit, len(steps), "one number for each turn", target)
        if isinstance(credit, Sequence | np.ndarray) and not isinstance(credit, str)
        else [credit] * len(steps)
        for credit, steps in zip(members, group.steps_G, strict=True)
    ]
    return [
        [{"trajectory": 0.0 if reward is None else _number(credit, target)} for credit in credit_K]
        for reward, credit_K in zip(group.rewards_G, credit_G_K, strict=True)
    ]


def _listed(given: Any, length: int, expected: str, target: str) -> list[Any]:
    given = given.tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise _invalid(target, f"it returned {type(given).__name__}, expected a list with {expected} ({length})")
    if len(given) != length:
        raise _invalid(target, f"it returned {len(given)} entries, expected {expected} ({length})")
    return list(given)


def _number(given: Any, target: str) -> float:
    is_number = isinstance(given, Real) and not isinstance(given, bool)
    if not is_number or not math.isfinite(given):
        raise _invalid(target, f"it gave {given!r:.80}, expected a finite number; return 0.0 where there is no credit")
    return float(given)


def _turn(turn: Turn, index: int, of: int) -> dict[str, Any]:
    return {
        "index": index,
        "of": of,
        "text": turn.reply.content or "",
        "calls": list(calls_of(turn)),
        "results": [result.output for result in turn.results],
        "errors": [result.is_error for result in turn.results],
        "malformed": turn.malformed,
    }


def _crash(where: object, error: BaseException) -> str:
    """`FILE raised TypeError at line 3: …`, the line being the innermost of the traceback."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    line = f" at line {last.tb_lineno}" if last is not None else ""
    return f"{where} raised {type(error).__name__}{line}: {error}".strip()


def _invalid(target: str, found: str) -> UserError:
    return UserError(f"credit {target}: {found}", param=_PARAM, code="invalid_credit")
