"""A person's own training function, named as `FILE.py:NAME`. It is found by reading its file; nothing is run here."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from dialin.errors import did_you_mean

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_BLOCKS = ("body", "orelse", "finalbody")  # of `if`, `try`, `with` and loops


def resolve_function(reference: str, folder: Path | None) -> str:
    """`FILE.py:NAME` with the absolute path of the file, which may be relative to `folder`. Raises ValueError."""
    file, function = split_function(reference)
    path = Path(file).expanduser()
    if folder is None and not path.is_absolute():
        raise ValueError(f"{file!r} is relative, and this specification lies in no folder; name the absolute path")
    return f"{((folder or Path()) / path).resolve()}:{function}"


def split_function(reference: str) -> tuple[str, str]:
    """The file and the name of a function. Raises ValueError for text of another form."""
    file, _, function = reference.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise ValueError(f"{reference!r} is not of the form FILE.py:FUNCTION, as in train.py:train")
    return file, function


def check_function(file: Path, function: str) -> None:
    """Raises ValueError when the file has no such function, or one that cannot be called as function(config, trial)."""
    # Read, never imported: importing would run the person's code on the machine that only checks it.
    bound = dict(_bound(_parsed(file).body))
    if function not in bound:
        functions = [name for name, node in bound.items() if isinstance(node, ast.FunctionDef)]
        near = did_you_mean(function, functions) if functions else "the file has no function"
        raise ValueError(f"no function {function!r} in {file}; {near}")
    _check_signature(file, function, bound[function])


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{file}: there is no such file") from None
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    except SyntaxError as error:
        where = f", line {error.lineno}:" if error.lineno else " is not Python:"
        raise ValueError(f"{file}{where} {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # a zero byte; nesting beyond the parser's stack
        raise ValueError(f"{file} is not Python: {error}") from None


def _bound(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Each name that the top level of a module binds, under `if`, `try` and `with` too, with its statement."""
    for statement in body:
        yield from ((name, statement) for name in _names(statement))
        if not isinstance(statement, _Definition):
            yield from _bound(_inner(statement))


def _names(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return [alias.asname or alias.name for alias in aliases]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _inner(statement: ast.stmt) -> list[ast.stmt]:
    """The statements of a statement's blocks."""
    found = [inner for block in _BLOCKS for inner in getattr(statement, block, [])]
    return [*found, *(inner for handler in getattr(statement, "handlers", []) for inner in handler.body)]


def _check_signature(file: Path, function: str, node: ast.stmt) -> None:
    """Checks a function that is written out; for one that was imported or assigned, the call shows it."""
    if isinstance(node, ast.AsyncFunctionDef | ast.ClassDef):
        kind = "a class" if isinstance(node, ast.ClassDef) else "async"
        raise ValueError(f"{function!r} in {file}, line {node.lineno}, is {kind}; it must be a plain function")
    if isinstance(node, ast.FunctionDef) and not _takes_two(node.args):
        written = f"{function}({ast.unparse(node.args)})"
        raise ValueError(f"{written} in {file}, line {node.lineno}; it is called as {function}(config, trial)")


def _takes_two(arguments: ast.arguments) -> bool:
    """Whether a function can be called with two positional arguments and nothing else."""
    positional = len(arguments.posonlyargs) + len(arguments.args)
    required = positional - len(arguments.defaults)
    keywords_required = any(default is None for default in arguments.kw_defaults)
    return required <= 2 and (positional >= 2 or arguments.vararg is not None) and not keywords_required
