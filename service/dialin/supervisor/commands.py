"""Command lines of child processes: a module of dialin, or a program that was installed with it."""

from __future__ import annotations

import sys
from pathlib import Path

from dialin.errors import ServerError

# `python -m` looks for modules in the current folder first, so that a `random.py` or a `ray.py` that lies there would
# be imported in place of the real one. -P leaves the folder out, as the installed `dialin` command does.
RUN_MODULE = ("-P", "-m")


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this interpreter, whatever the current folder holds."""
    return [sys.executable, *RUN_MODULE, module, *arguments]


def program_path(name: str, package: str) -> str:
    """Return the path of a program that `package` installs into the environment of this interpreter.

    PATH is not searched, because it may lead to another environment. Raises ServerError if the program is missing.
    """
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise ServerError(f"{path} does not exist; install {package} into the environment of {sys.executable}")
    return str(path)
