"""Where commands print: a console for a person, one JSON object for a machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dialin.texts import printable

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130
WATCHING_ENDED = "watching has ended; the study goes on"
_EXIT_CODES = {"complete": 0, "interrupted": INTERRUPTED}


def console(stderr: bool = False) -> Console:
    # A command that prints JSON does without it.
    from rich.console import Console

    # Without markup: what people and their functions have written is printed, and none of it is a command to rich.
    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, allow_nan=False))


def print_text(text: str, key: str | None = None) -> None:
    """A text with one end of line behind it; as the only entry of an object where there is a key."""
    if key is None:
        print(printable(text).removesuffix("\n"))
    else:
        print_json({key: text})


def exit_code(state: str) -> int:
    """That of a command which has seen a study end in this state."""
    return _EXIT_CODES.get(state, 1)
