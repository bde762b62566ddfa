"""The fingerprint of an agent's code: part of the code -> digest of its syntax tree.

Comments, docstrings, layout and positions do not count. Parts are main, every step and tool it can reach, and the plain
functions of the same module in between. What is reached is found by reading names, so a step picked by a computed
name must be listed in `tools=` of the agent.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from agentstate.sdk.steps import Step


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    steps: tuple[Step[Any, Any], ...]
    fingerprint: dict[str, str]


def parts_of(main: Callable[..., Any], *, also: Sequence[Step[Any, Any]] = ()) -> Parts:
    steps: dict[str, Step[Any, Any]] = {}
    digests = {"main": digest_of(main)}
    seen: set[int] = {id(main)}
    todo: list[Any] = [*_referred(main), *also]
    while todo:
        found = todo.pop()
        if isinstance(found, Step):
            _add(steps, digests, found)
        fn = found.fn if isinstance(found, Step) else found
        if id(fn) in seen:
            continue
        seen.add(id(fn))
        if not isinstance(found, Step):
            if not _is_near(fn, main):
                continue
            digests[f"function {fn.__qualname__}"] = digest_of(fn)
        todo.extend(_referred(fn))
    return Parts(tuple(steps.values()), dict(sorted(digests.items())))


def digest_of(fn: Callable[..., Any]) -> str:
    """SHA-256 hex of the function's syntax tree; of its byte code where there is no source (a prompt, exec)."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(fn)))
    except (OSError, TypeError, SyntaxError):
        return hashlib.sha256(_byte_code(fn)).hexdigest()
    for node in ast.walk(tree):
        _drop_docstring(node)
    return hashlib.sha256(ast.dump(tree, annotate_fields=False, include_attributes=False).encode()).hexdigest()


def _add(steps: dict[str, Step[Any, Any]], digests: dict[str, str], found: Step[Any, Any]) -> None:
    known = steps.get(found.name)
    if known is not None and known.fn is not found.fn:
        raise ValueError(f"Two steps of this agent have the name {found.name!r}; give one of them name=.")
    steps[found.name] = found
    digests[f"{'tool' if found.tool else 'step'} {found.name}"] = digest_of(found.fn)


def _referred(fn: Any) -> Iterator[Any]:
    """Steps and plain functions that the code of fn names, also as an attribute of a module or inside a collection."""
    code = getattr(fn, "__code__", None)
    if code is None:
        return
    cells = dict(zip(code.co_freevars, fn.__closure__ or (), strict=True))
    for names in _names(code):
        for name in names:
            yield from _interesting(_resolve(name, fn, cells), names)


def _names(code: types.CodeType) -> Iterator[set[str]]:
    yield {*code.co_names, *code.co_freevars}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _resolve(name: str, fn: Any, cells: dict[str, Any]) -> Any:
    if name in cells:
        try:
            return cells[name].cell_contents
        except ValueError:
            return None
    return fn.__globals__.get(name)


def _interesting(value: Any, names: set[str]) -> Iterable[Any]:
    if isinstance(value, (Step, types.FunctionType)):
        yield value
    elif isinstance(value, types.ModuleType):
        yield from (found for name in names if isinstance(found := vars(value).get(name), (Step, types.FunctionType)))
    elif isinstance(value, (list, tuple, dict)):
        items = value.values() if isinstance(value, dict) else value
        yield from (item for item in items if isinstance(item, (Step, types.FunctionType)))


def _is_near(fn: Any, main: Any) -> bool:
    return isinstance(fn, types.FunctionType) and fn.__module__ == main.__module__


def _drop_docstring(node: ast.AST) -> None:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
        node.body = node.body[1:] or [ast.Pass()]


def _byte_code(fn: Any) -> bytes:
    code = getattr(fn, "__code__", None)
    if code is None:
        return repr(type(fn)).encode()
    constants = [constant for constant in code.co_consts if not isinstance(constant, types.CodeType)]
    return bytes(code.co_code) + repr((code.co_names, constants)).encode()
