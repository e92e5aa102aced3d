"""What a Python grader should not do with text that a model wrote, found by reading its source.

Names are resolved through imports (`from pickle import loads as read`). What derives from the sample, the first
parameter of `grade`, is followed through assignments, loops, f-strings and calls inside that function, without regard
to order and not into other functions. So it is a help for honest authors, not a proof: the jail is what stops code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
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
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name == _FUNCTION:
            sample = _Sample(function, imported)
            found += [warning for call in _calls(function) if (warning := _of_sample(call, sample))]
    return sorted(found, key=lambda warning: warning.line)


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


def _of_sample(call: ast.Call, sample: _Sample) -> LintWarning | None:
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


class _Sample:
    """Which expressions of a function derive from its first parameter."""

    def __init__(self, function: ast.FunctionDef, imported: dict[str, str]) -> None:
        self.imported = imported
        parameters = [*function.args.posonlyargs, *function.args.args][:1]
        self._names = {parameter.arg for parameter in parameters}
        bindings = [pair for node in ast.walk(function) for pair in _bindings(node)]
        known = -1
        while known < len(self._names):  # a name may be bound from one that is bound further down, as in loops
            known = len(self._names)
            for target, value in bindings:
                if self.reaches(value):
                    self._names |= _bound(target)

    def reaches(self, node: ast.AST) -> bool:
        """Whether text of the sample may be in this value."""
        if isinstance(node, ast.Name):
            return node.id in self._names
        if isinstance(node, ast.Compare | ast.Lambda):
            return False
        if isinstance(node, ast.Call) and _dotted(node.func, self.imported) in _CLEAN:
            return False
        if isinstance(node, ast.Subscript):  # the key chooses, it is not in what is chosen
            return self.reaches(node.value)
        if isinstance(node, ast.IfExp):
            return self.reaches(node.body) or self.reaches(node.orelse)
        return any(map(self.reaches, ast.iter_child_nodes(node)))


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
