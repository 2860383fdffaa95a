"""How the search of a study ended, before it is written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from dialin.lifecycle import StudyState
from dialin.results.looks import Look
from dialin.search.records import TrialRecord


@dataclass(frozen=True)
class Ending:
    """What the loop leaves for the last stage."""

    state: StudyState
    reason: str
    trials: Sequence[TrialRecord]
    """Every trial of the study, by number."""
    looks: Sequence[Look]
    """Every look at the test split, the first one first."""


def end_of_error(error: BaseException) -> tuple[StudyState, str]:
    """The state and the reason of a study that an error has ended."""
    if isinstance(error, KeyboardInterrupt):
        return StudyState.INTERRUPTED, "interrupted"
    return StudyState.FAILED, f"{type(error).__name__}: {error}"


def on_error(handler: Callable[[BaseException], None]) -> AbstractContextManager[object]:
    """Call `handler` with an error that leaves the block, Ctrl-C included, before the caller gets it."""
    stack = ExitStack()
    stack.push(lambda _type, error, _traceback: None if error is None else handler(error))
    return stack
