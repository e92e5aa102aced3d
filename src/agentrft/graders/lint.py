"""What a Python grader should not do with text that a model wrote, found by reading its source.

Names are resolved through imports (`from pickle import loads as read`). What derives from the sample, the first
parameter of `grade`, is followed through assignments, loops, f-strings and calls, without regard to order: into the
functions of the same file that are called by name with it, and out of them again by what they return. Methods, globals
and lists that a function fills are not followed. So it is a help for honest authors, not a proof: the jail is what
stops code.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_FUNCTION = "grade"


@dataclass(frozen=True, slots=True, kw_only=True)
class LintWarning:
    """One risky call."""

    line: int
    """In the source, from 1."""
    rule: str
    """`code`, `pickle`, `yaml`, `sympy`, `format` or `pattern`."""
    message: str
    """What is wrong, and what to do."""


_CODE = "{name} runs text as Python; parse the answer (float, json.loads), or run the model's code with run_code"
_PICKLE = "{name} can run any code that its input holds; read JSON instead"
_SYMPY = "{name} evaluates its text as Python; compare numbers or strings, or parse the answer by a grammar of your own"
_YAML = "{name} can build any Python object; use yaml.safe_load"
_FORMAT = "{name} on text of the sample lets it read your objects' attributes; use the text as an argument of format"
_PATTERN = "{name} with a pattern of the sample lets it match anything or run for ever; use re.escape or `in`"

_ALWAYS = {
    **dict.fromkeys(("eval", "exec", "compile"), ("code", _CODE)),
    **{
        f"{module}.{name}": ("pickle", _PICKLE)
        for module in ("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal")
        for name in ("load", "loads", "Unpickler")
    },
    **{f"yaml.{name}": ("yaml", _YAML) for name in ("unsafe_load", "full_load", "unsafe_load_all", "full_load_all")},
}
_YAML_LOADS = frozenset({"yaml.load", "yaml.load_all"})
_SAFE_LOADERS = frozenset({"SafeLoader", "CSafeLoader", "BaseLoader", "CBaseLoader"})
_SYMPY_NAMES = frozenset({"sympify", "parse_expr"})
_PATTERN_CALLS = frozenset({"compile", "match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"})
_CLEAN = frozenset({"re.escape", "regex.escape", "len", "int", "float", "bool", "isinstance"})
"""Calls whose result is harmless whatever they are given."""


def lint(source: str) -> list[LintWarning]:
    """Warnings about a Python grader's source by line; none for what is not Python, which `build_grader` refuses."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    imported = _imported(tree)
    found = [warning for call in _calls(tree) if (warning := _always(call, imported))]
    with contextlib.suppress(RecursionError):  # an expression too deep to follow
        for flow in _flows(tree, imported):
            found += [warning for call in _calls(flow.function) if (warning := _of_sample(call, flow))]
    # A function within a function is looked at twice.
    return sorted(dict.fromkeys(found), key=lambda warning: warning.line)


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _imported(tree: ast.AST) -> dict[str, str]:
    """The dotted name behind each name that an import binds."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def _dotted(node: ast.expr, imported: dict[str, str]) -> str:
    """`a.b.c` of a name or attribute, imports resolved; empty for anything else."""
    if isinstance(node, ast.Name):
        return imported.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value, imported)):
        return f"{before}.{node.attr}"
    return ""


def _always(call: ast.Call, imported: dict[str, str]) -> LintWarning | None:
    """A call that is risky whatever it is given."""
    name = _dotted(call.func, imported).removeprefix("builtins.")
    if name in _ALWAYS:
        rule, message = _ALWAYS[name]
        return _warning(call, rule, message, name)
    if name in _YAML_LOADS and not _has_safe_loader(call, imported):
        return _warning(call, "yaml", _YAML, name)
    if name.rpartition(".")[2] in _SYMPY_NAMES:
        return _warning(call, "sympy", _SYMPY, name)
    return None


def _has_safe_loader(call: ast.Call, imported: dict[str, str]) -> bool:
    given = [*call.args[1:2], *(keyword.value for keyword in call.keywords if keyword.arg == "Loader")]
    return any(_dotted(loader, imported).rpartition(".")[2] in _SAFE_LOADERS for loader in given)


def _of_sample(call: ast.Call, sample: _Flow) -> LintWarning | None:
    """A call that is risky because of where its text comes from."""
    function = call.func
    if isinstance(function, ast.Attribute) and function.attr in ("format", "format_map"):
        return _warning(call, "format", _FORMAT, function.attr) if sample.reaches(function.value) else None
    name = _dotted(function, sample.imported)
    module, _, called = name.rpartition(".")
    if module not in ("re", "regex") or called not in _PATTERN_CALLS:
        return None
    patterns = [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg == "pattern")]
    return _warning(call, "pattern", _PATTERN, name) if any(map(sample.reaches, patterns)) else None


def _warning(call: ast.Call, rule: str, message: str, name: str) -> LintWarning:
    return LintWarning(line=call.lineno, rule=rule, message=message.format(name=name))


def _flows(tree: ast.AST, imported: dict[str, str]) -> list[_Flow]:
    """Where the sample goes: a flow for every function that `grade` hands some of it, through however many calls."""
    flows: dict[str, _Flow] = {}
    for function in _functions(tree):
        flows[function.name] = _Flow(function, imported, flows)
    for flow in flows.values():
        flow.tell_callees()
    waiting = [flows[_FUNCTION]] if _FUNCTION in flows else []
    for flow in waiting:
        flow.take(_parameters(flow.function)[:1])
    while waiting:
        waiting += waiting.pop().spread()
    return [flow for flow in flows.values() if flow.names]


def _functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    """Functions that can be called by their name alone: not methods."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield child
        if not isinstance(child, ast.ClassDef):
            yield from _functions(child)


def _parameters(function: ast.FunctionDef) -> list[str]:
    return [parameter.arg for parameter in (*function.args.posonlyargs, *function.args.args)]


class _Flow:
    """Which names of a function may hold text of the sample."""

    def __init__(self, function: ast.FunctionDef, imported: dict[str, str], flows: Mapping[str, _Flow]) -> None:
        self.function = function
        self.imported = imported
        self.names: set[str] = set()
        self.gives = False
        """Whether what it returns may hold text of the sample, where it is given some."""
        self._flows = flows
        self._callers: list[_Flow] = []
        nodes = list(ast.walk(function))
        self._bindings = [pair for node in nodes for pair in _bindings(node)]
        self._results = [n.value for n in nodes if isinstance(n, ast.Return | ast.Yield | ast.YieldFrom) and n.value]
        self._calls = list(_calls(function))

    def tell_callees(self) -> None:
        """Let the functions that are called here know whom to tell what they return."""
        for call in self._calls:
            if called := self._called(call):
                called._callers.append(self)

    def take(self, names: Iterable[str]) -> bool:
        """Whether any of these names is news."""
        before = len(self.names)
        self.names.update(names)
        return len(self.names) > before

    def spread(self) -> list[_Flow]:
        """Follow the sample through bindings, results and calls; whom that is news for."""
        # A name may be bound from one that is bound further down, as in loops.
        while any(self.take(_bound(target)) for target, value in self._bindings if self.reaches(value)):
            pass
        news: list[_Flow] = []
        if not self.gives and any(map(self.reaches, self._results)):
            self.gives = True
            news += self._callers
        called = [(call, to) for call in self._calls if (to := self._called(call))]
        return news + [to for call, to in called if to.take(self._handed(call, to.function))]

    def reaches(self, node: ast.AST) -> bool:
        """Whether text of the sample may be in this value."""
        if isinstance(node, ast.Name):
            return node.id in self.names
        if isinstance(node, ast.Compare | ast.Lambda):
            return False
        if isinstance(node, ast.Call):
            if _dotted(node.func, self.imported) in _CLEAN:
                return False
            if called := self._called(node):
                return called.gives and bool(self._handed(node, called.function))
        if isinstance(node, ast.Subscript):  # the key chooses, it is not in what is chosen
            return self.reaches(node.value)
        if isinstance(node, ast.IfExp):
            return self.reaches(node.body) or self.reaches(node.orelse)
        return any(map(self.reaches, ast.iter_child_nodes(node)))

    def _called(self, call: ast.Call) -> _Flow | None:
        return self._flows.get(call.func.id) if isinstance(call.func, ast.Name) else None

    def _handed(self, call: ast.Call, function: ast.FunctionDef) -> set[str]:
        """The parameters that get some of the sample in this call."""
        names, arguments = _parameters(function), function.args
        rest = [arguments.vararg.arg] if arguments.vararg else []
        others = [arguments.kwarg.arg] if arguments.kwarg else []
        by_name = {*names, *(parameter.arg for parameter in arguments.kwonlyargs)}
        handed: set[str] = set()
        for place, given in enumerate(call.args):
            if self.reaches(given):
                handed.update([*names[place:], *rest] if isinstance(given, ast.Starred) else names[place:][:1] or rest)
        for keyword in call.keywords:
            if self.reaches(keyword.value):
                handed.update([*by_name, *others] if keyword.arg is None else {keyword.arg} & by_name or others)
        return handed


def _bindings(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """(target, value) of everything that binds names to a value."""
    if isinstance(node, ast.Assign):
        yield from ((target, node.value) for target in node.targets)
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value is not None:
        yield node.target, node.value
    elif isinstance(node, ast.For | ast.comprehension):
        yield node.target, node.iter
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        yield node.optional_vars, node.context_expr


def _bound(target: ast.expr) -> set[str]:
    """Names that an assignment to `target` changes: of `a[k]` and `a.b` it is `a`."""
    if isinstance(target, ast.Name):
        return {target.id}
    if isinstance(target, ast.Subscript | ast.Attribute | ast.Starred):
        return _bound(target.value)
    if isinstance(target, ast.Tuple | ast.List):
        return {name for element in target.elts for name in _bound(element)}
    return set()
