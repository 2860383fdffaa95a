"""Where commands print: a console for a person, one JSON document on standard output for a machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dialin.texts import printable

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130
"""The exit code of a process that Ctrl-C or a termination signal has ended."""

_EXIT_CODES = {"complete": 0, "interrupted": INTERRUPTED}


def console(stderr: bool = False) -> Console:
    """The terminal, for text that a person reads; wrapped nowhere, so that output can be piped."""
    # Commands that print JSON never load rich.
    from rich.console import Console

    # Without markup: texts of users and of their functions are printed, and rich would take `[red]` in them as a style.
    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def print_json(data: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(data, indent=2, allow_nan=False))


def print_text(text: str) -> None:
    """Print a text, with one line end after it."""
    print(printable(text).removesuffix("\n"))


def exit_code(state: str) -> int:
    """The exit code of a command that has seen a study end in this state."""
    return _EXIT_CODES.get(state, 1)
