"""A function of one's own, named as `FILE.py:NAME`. It is found by reading its file; nothing is ever run here."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from dialin.errors import did_you_mean


def resolve_function(reference: str, folder: Path | None) -> str:
    """`FILE.py:NAME` with the whole path of the file, which was relative to `folder`. Raises ValueError."""
    file, function = split_function(reference)
    path = Path(file).expanduser()
    if folder is None and not path.is_absolute():
        raise ValueError(f"{file!r} is relative, and this specification lies in no folder; name the whole path")
    return f"{((folder or Path()) / path).resolve()}:{function}"


def split_function(reference: str) -> tuple[str, str]:
    """The file and the name of a function. Raises ValueError for text of another form."""
    file, _, function = reference.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise ValueError(f"{reference!r} is not of the form FILE.py:FUNCTION, as in train.py:train")
    return file, function


def check_function(file: Path, function: str) -> None:
    """Raises ValueError when the file has no such function, or one that cannot be called as function(config, trial),
    and when its folder would hide our own packages from it."""
    try:
        source = file.read_bytes()
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else f"not read: {error.strerror}"
        raise ValueError(f"{file}: {reason}") from None
    try:
        module = ast.parse(source)
    except SyntaxError as error:
        where = f", line {error.lineno}:" if error.lineno else " is not Python:"
        raise ValueError(f"{file}{where} {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{file} is not Python: {error}") from None
    bound = dict(_bound(module.body))
    if function not in bound:
        functions = [name for name, node in bound.items() if isinstance(node, ast.FunctionDef)]
        near = did_you_mean(function, functions) if functions else "there is none at all"
        raise ValueError(f"no function {function!r} in {file}; {near}")
    _check_signature(file, function, bound[function])


def _bound(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """What the top level of a module binds, under its conditions too, each name with its statement."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name, statement
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name, statement) for alias in statement.names)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            yield from ((target.id, statement) for target in targets if isinstance(target, ast.Name))
        for inner in ("body", "orelse", "finalbody", "handlers"):
            if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _bound(_statements(getattr(statement, inner, [])))


def _statements(parts: Sequence[ast.AST]) -> list[ast.stmt]:
    """Statements; those of the handlers of a `try` in their place."""
    found: list[ast.stmt] = []
    for part in parts:
        found += part.body if isinstance(part, ast.ExceptHandler) else [part] if isinstance(part, ast.stmt) else []
    return found


def _check_signature(file: Path, function: str, node: ast.stmt) -> None:
    """Of a function that is written out; what was imported or assigned shows when it is called."""
    if isinstance(node, ast.AsyncFunctionDef | ast.ClassDef):
        kind = "a class" if isinstance(node, ast.ClassDef) else "async"
        raise ValueError(f"{function!r} in {file}, line {node.lineno}, is {kind}; a plain function is wanted")
    if not isinstance(node, ast.FunctionDef):
        return
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    named = [
        argument.arg
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    ]
    if (len(positional) < 2 and arguments.vararg is None) or required > 2 or named:
        written = f"{function}({ast.unparse(arguments)})"
        raise ValueError(f"{written} in {file}, line {node.lineno}; it is called as {function}(config, trial)")
