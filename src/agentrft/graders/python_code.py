"""`python`: a function `grade(sample, item) -> float` of the user's, in a fresh process for each call or group.

`sample` is a dict (`output_text`, `output_json`, `output_tools`, `choices`, `messages`, `n_calls`, `stop_reason`),
`item` the row's own keys. The result counts only if it is exactly an int or a float, finite and within `range`: True,
"0.5", numpy scalars, NaN and 32512 are no grade, with the reason, and never clamped into one. So are an exception (with
its traceback), a timeout and a death. Limits: source 256 kB, 120 s by default, 2 GB memory, result 64 kB.

The process is jailed (`agentrft.sandbox`): no files but Python's own, no network, no other process. Where the machine
cannot enforce that, Monty runs graders that keep to its part of Python; others are refused. `isolation` asks for one,
or for a plain process with neither, and stays in the job's document. `run_code(code, tests)` is there for code that the
model wrote (not in Monty): see `agentrft.sandbox.run_code`.

OpenAI's `image_tag` is accepted and kept, so that job documents stay portable; code runs with the packages installed
here.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from agentrft.errors import SandboxFault, UserError
from agentrft.graders.sample import sample_object
from agentrft.graders.spec import Spec
from agentrft.sandbox.choice import Wanted, choose
from agentrft.sandbox.layers import Isolation
from agentrft.sandbox.process import MAX_GROUP, ForkServer, Outcome, Program
from agentrft.together import together
from agentrft.types import Grade, GradeError, Item, Sample

MAX_SOURCE_BYTES = 256_000
WORTH_SHARING_S = 0.02
"""Of one call. A process costs 3 ms: a slower function gains little by sharing one, and would leave processors idle."""
_FUNCTION = "grade"


class PythonSpec(Spec):
    type: Literal["python"]
    source: str | None = None
    """Python text that defines `grade`; this or `source_file`."""
    source_file: str | None = None
    """A file with that text, relative to the job file."""
    range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest grade; anything outside is no grade."""
    timeout_s: float = Field(default=120.0, gt=0, le=600)
    """Wall-clock limit of one call."""
    isolation: Wanted = "auto"
    """`auto` is the jail, or Monty where there can be none. `process` gives both up: only for code that may do whatever
    you may do."""
    image_tag: str | None = None
    """OpenAI's name for a set of packages; kept, see above."""

    @field_validator("range")
    @classmethod
    def _range_goes_up(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(map(math.isfinite, value)) or value[0] >= value[1]:
            raise ValueError(f"got {list(value)}, expected two finite numbers, the lower one first")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.source is None) == (self.source_file is None):
            got = "neither" if self.source is None else "both"
            raise ValueError(f"got {got} of `source` and `source_file`, expected one of them")
        return self


class PythonGrader:
    """Calls the user's function; owns a fork server, started at the first grade."""

    def __init__(self, spec: PythonSpec, base_dir: Path, *, param: str = "grader") -> None:
        """Raises UserError when the source is unusable, or this machine cannot confine it as `isolation` demands."""
        source, filename = read_source(spec, base_dir, param)
        tree = _parse(source, filename, param)
        _check_function(tree, filename, param)
        self._spec = spec
        self._program = Program(source=source, function=_FUNCTION, filename=filename, imports=_imports(tree))
        self._server = ForkServer(isolation=_isolation(spec, self._program, param))
        self._last_s = 0.0

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        """One call in a process of its own."""
        return (await self._together([sample], item))[0]

    async def grade_group(self, samples_G: Sequence[Sample], item: Item) -> list[Grade]:
        """Grades of samples of one item, up to 16 in one process, several times as fast; they can see each other.

        Only a number counts that was given in company: who gets none is graded again alone, so that neither a death nor
        an exception costs another's grade. A function too slow to gain by it gets a process for each, side by side.
        """
        if self._last_s > WORTH_SHARING_S:
            return await self._alone(samples_G, item)
        grades_G: list[Grade] = []
        for start in range(0, len(samples_G), MAX_GROUP):
            shared = samples_G[start : start + MAX_GROUP]
            grades = await self._together(shared, item)
            # The first one had the process to itself: its reason is its own.
            failed = [n for n, grade in enumerate(grades) if n and grade.value is None]
            again = await self._alone([shared[n] for n in failed], item)
            grades_G += [dict(zip(failed, again, strict=True)).get(n, grade) for n, grade in enumerate(grades)]
        return grades_G

    async def close(self) -> None:
        """Stop the worker; grades under way end without a number."""
        await self._server.close()

    async def _alone(self, samples_G: Sequence[Sample], item: Item) -> list[Grade]:
        grades_G = await together(self._together([sample], item) for sample in samples_G)
        return [grade for (grade,) in grades_G]

    async def _together(self, samples_G: Sequence[Sample], item: Item) -> list[Grade]:
        name = self._spec.name
        try:
            arguments_G = [(sample_object(sample), dict(item.fields)) for sample in samples_G]
            found_G = await self._server.call_group(self._program, arguments_G, timeout_s=self._spec.timeout_s)
        except SandboxFault as fault:
            return [_without_process(name, fault) for _ in samples_G]
        except (TypeError, ValueError, RecursionError) as error:
            reason = f"the item cannot be handed to grader {name!r}: {error}"
            return [Grade(value=None, reason=reason, error=GradeError.SAMPLE_PARSE) for _ in samples_G]
        self._last_s = max((found.wall_s for found in found_G if isinstance(found, Outcome)), default=math.inf)
        return [
            _without_process(name, found) if isinstance(found, SandboxFault) else self._judge(found)
            for found in found_G
        ]

    def _judge(self, outcome: Outcome) -> Grade:
        name = self._spec.name
        if outcome.error is not None:
            reason = f"grader {name!r} raised {outcome.error}"
            return self._failed(reason, outcome)
        low, high = self._spec.range
        value = outcome.value
        # The type as the child saw it and as it arrived: a child that lies about one fails by the other.
        is_number = outcome.kind in ("builtins.int", "builtins.float") and type(value) in (int, float)
        if not is_number or not low <= value <= high:  # bounds are finite: NaN, inf and huge ints are outside
            got = f"{_shown(value)} ({(outcome.kind or '').removeprefix('builtins.')})"
            reason = f"grader {name!r} returned {got}, expected a finite int or float from {low:g} to {high:g}"
            return self._failed(reason, outcome)
        return Grade(value=float(value), wall_s=outcome.wall_s)

    def _failed(self, reason: str, outcome: Outcome) -> Grade:
        error = GradeError.PYTHON_RUNTIME
        return Grade(value=None, reason=reason, traceback=outcome.traceback, wall_s=outcome.wall_s, error=error)


def _without_process(name: str, fault: SandboxFault) -> Grade:
    return Grade(value=None, reason=f"grader {name!r}: {fault}", error=GradeError.PYTHON_SERVER)


def _isolation(spec: PythonSpec, program: Program, param: str) -> Isolation:
    choice = choose(spec.isolation, program)
    if choice.isolation is not None:
        return choice.isolation
    raise UserError(
        f"no sandbox here can run the Python grader {spec.name!r}: {'; '.join(choice.lacking)}; expected Linux with "
        "Landlock or unprivileged user namespaces, or a source that Monty can run; next step: `agentrft doctor` shows "
        "what is missing; do without what Monty lacks, or use `string_check`, `text_similarity`, `multi` or "
        "`endpoint`; for a grader that you trust like your own programs, set `isolation: process` on it",
        param=f"{param}.isolation",
        code="sandbox_unavailable",
    )


def sandbox_of(spec: PythonSpec) -> str:
    """Where a grader that can be built here runs, and why not in what comes before it; for people."""
    choice = choose(spec.isolation)
    return "; ".join([f"grader {spec.name!r} runs in {choice.name}", *choice.lacking])


def fallback_of(spec: PythonSpec) -> list[str]:
    """A warning where a grader runs in something else than a jail without having asked for it."""
    choice = choose(spec.isolation)
    if choice.isolation is None or not choice.lacking:
        return []
    return [f"{sandbox_of(spec)}; it has a part of Python only, so its grades can differ from those of a jail"]


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number beyond 1e30"
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def read_source(spec: PythonSpec, base_dir: Path, param: str) -> tuple[str, str]:
    """The grader's source and what to call it; raises UserError for a file that cannot be read or is too large."""
    if spec.source is not None:
        source, filename = spec.source, f"<grader {spec.name}>"
    else:
        path = base_dir / (spec.source_file or "")
        filename = str(path)
        try:
            source = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UserError(
                f"cannot read the grader {path}: {why}; expected a Python file; next step: check `source_file` (paths "
                "are relative to the job file)",
                param=f"{param}.source_file",
                code="file_not_found",
            ) from None
    if len(source.encode("utf-8", "surrogatepass")) > MAX_SOURCE_BYTES:
        raise _unfit(f"{filename} is larger than {MAX_SOURCE_BYTES} bytes", "a smaller source", "shorten it", param)
    return source, filename


def _parse(source: str, filename: str, param: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source, filename)
    except SyntaxError as error:
        line = (error.text or "").strip()
        what = f"{filename}, line {error.lineno or 1}: {error.msg}, got {line[:60]!r}"
        raise _unfit(what, "Python source", "mend that line", param) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise _unfit(f"{filename} cannot be parsed ({error})", "Python source", "simplify it", param) from None


def _check_function(tree: ast.Module, filename: str, param: str) -> None:
    found = [node for node in tree.body if getattr(node, "name", None) == _FUNCTION]
    bound_otherwise = any(
        getattr(node, "name", None) == _FUNCTION  # inside `try:` or `if`
        or (isinstance(node, ast.Name) and node.id == _FUNCTION)
        or (isinstance(node, ast.alias) and _FUNCTION in (node.name, node.asname))
        for node in ast.walk(tree)
    )
    if not found and not bound_otherwise:
        raise _unfit(f"{filename} defines no `grade`", "def grade(sample, item) -> float", "define it", param)
    if not found:
        return
    node = found[-1]
    if isinstance(node, ast.AsyncFunctionDef):
        raise _unfit(f"{filename}: `grade` is async", "a plain function", "remove `async`", param)
    if isinstance(node, ast.FunctionDef):
        arguments = node.args
        positional = len(arguments.posonlyargs) + len(arguments.args)
        needed = positional - len(arguments.defaults)
        takes_two = needed <= 2 <= (positional if arguments.vararg is None else max(positional, 2))
        if not takes_two or any(default is None for default in arguments.kw_defaults):
            got = ast.unparse(arguments)
            raise _unfit(f"{filename}: got `grade({got})`", "grade(sample, item)", "take two arguments", param)


def _imports(tree: ast.Module) -> tuple[str, ...]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return tuple(sorted(names))


def _unfit(what: str, expected: str, step: str, param: str) -> UserError:
    return UserError(
        f"unusable grader source: {what}; expected {expected}; next step: {step}", param=param, code="invalid_grader"
    )
