"""What a source needs of Python, as pieces of code that an interpreter of a part of Python can be tried with.

Modules and their names, builtins, methods of builtin types, and a few things that Monty knows by name only. The
source is read, not run, so most of what depends on values is not seen.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass

_VALUES = {
    **{str: "''", bytes: "b''", int: "(0)", float: "(0.0)", list: "[]", tuple: "()", dict: "{}", set: "set()"},
    frozenset: "frozenset()",
}
_GUARDED = "try: {}\nexcept TypeError: raise NotImplementedError"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One thing that a source uses."""

    name: str
    """For people."""
    line: int
    """Of its first use."""
    tries: tuple[str, ...]
    """Pieces of code, of which one at least must not fail for want of a module, a name or an attribute."""
    module: str | None = None
    """What it is a part of: where that is missing, this need not be said too."""


def needs_of(tree: ast.Module) -> list[Need]:
    """All that can be told from the source, each thing once, in the order of first uses."""
    reader = _Reader(tree)
    found: dict[str, Need] = {}
    for need in sorted(reader.needs(), key=lambda need: need.line):
        found.setdefault(need.name, need)
    return list(found.values())


class _Reader:
    def __init__(self, tree: ast.Module) -> None:
        self._nodes = list(ast.walk(tree))
        self._called = {id(node.func) for node in self._nodes if isinstance(node, ast.Call)}
        self._own = set(map(_bound_name, self._nodes))
        self._functions = {node.name for node in self._nodes if isinstance(node, ast.FunctionDef)}
        imports = [alias for node in self._nodes if isinstance(node, ast.Import) for alias in node.names]
        self._modules = {alias.asname or _top(alias.name): alias.asname and alias.name for alias in imports}

    def needs(self) -> Iterator[Need]:
        for node in self._nodes:
            if isinstance(node, ast.Import):
                yield from (_module(alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from _names_of(node, node.module)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                yield from self._attribute(node)
            elif isinstance(node, ast.Name) and node.id not in self._own and hasattr(builtins, node.id):
                yield Need(name=node.id, line=node.lineno, tries=(node.id,))
            elif isinstance(node, ast.Name) and node.id == "run_code" and node.id not in self._own:
                yield Need(name="run_code, whose code may use all of Python", line=node.lineno, tries=())
            elif isinstance(node, ast.Call):
                yield from self._function(node)
            elif isinstance(node, ast.Compare | ast.BinOp):
                yield from _views(node)

    def _function(self, node: ast.Call) -> Iterator[Need]:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if name == "next" and any(isinstance(argument, ast.GeneratorExp) for argument in node.args[:1]):
            yield _act("next() of a generator expression", node.lineno, "next(x for x in [1])")
        if method in ("sub", "subn") and any(self._is_function(argument) for argument in node.args):
            yield _act("re.sub() with a function", node.lineno, "import re", "re.sub('a', lambda found: 'b', 'a')")

    def _is_function(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Lambda) or (isinstance(node, ast.Name) and node.id in self._functions)

    def _attribute(self, node: ast.Attribute) -> Iterator[Need]:
        name, call = node.attr, "()" if id(node) in self._called else ""
        owner = node.value.id if isinstance(node.value, ast.Name) else ""
        if owner in self._modules:
            module = self._modules[owner] or owner
            tries = (f"import {module}\n{module}.{name}",)
            yield Need(name=f"{module}.{name}", line=node.lineno, tries=tries, module=module)
        elif owner not in self._own and hasattr(builtins, owner):
            yield Need(name=f"{owner}.{name}", line=node.lineno, tries=(f"{owner}.{name}{call}",))
        elif name not in self._own:
            tries = tuple(f"{value}.{name}{call}" for kind, value in _VALUES.items() if name in dir(kind))
            if tries:
                shown = f".{name}()" if call else f".{name} without a call"
                yield Need(name=shown, line=node.lineno, tries=tries)


def _module(name: str, line: int) -> Need:
    return Need(name=f"module {name}", line=line, tries=(f"import {name}",))


def _names_of(node: ast.ImportFrom, module: str) -> Iterator[Need]:
    yield _module(module, node.lineno)
    for alias in node.names:
        tries = (f"from {module} import {alias.name}",)
        yield Need(name=f"{module}.{alias.name}", line=node.lineno, tries=tries, module=module)


def _bound_name(node: ast.AST) -> str | None:
    """The name that a node gives a meaning of the source's own, fields of its classes included."""
    if isinstance(node, ast.Name | ast.Attribute):
        text = node.id if isinstance(node, ast.Name) else node.attr
        return text if isinstance(node.ctx, ast.Store) else None
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
        return node.name
    if isinstance(node, ast.arg):
        return node.arg
    return (node.asname or _top(node.name)) if isinstance(node, ast.alias) else None


def _views(node: ast.Compare | ast.BinOp) -> Iterator[Need]:
    """Set operations on the views of dictionaries: the same operation on empty ones."""
    operands = [node.left, node.right] if isinstance(node, ast.BinOp) else [node.left, *node.comparators]
    called = [operand.func for operand in operands if isinstance(operand, ast.Call)]
    names = [function.attr for function in called if isinstance(function, ast.Attribute)]
    operators = [node.op] if isinstance(node, ast.BinOp) else node.ops
    for name in {"keys", "items"}.intersection(names):
        view = ast.parse(f"{{}}.{name}()", mode="eval").body
        for op in operators:
            made = ast.BinOp(view, op, view) if isinstance(op, ast.operator) else ast.Compare(view, [op], [view])
            code = ast.unparse(made)
            yield _act(code.replace("{}", ""), node.lineno, code)


def _act(name: str, line: int, *code: str) -> Need:
    """Something that raises TypeError where it is not there."""
    return Need(name=name, line=line, tries=(_GUARDED.format("; ".join(code)),))


def _top(name: str) -> str:
    return name.partition(".")[0]
