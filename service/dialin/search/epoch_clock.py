"""The durations of epochs, and which trials have been at one epoch for too long. Pure: the clock is passed in."""

from __future__ import annotations

from collections.abc import Callable

# The limit of an epoch where `budget.epoch_minutes` does not set one. A healthy epoch must never be ended, so it is far
# above what was seen. The three numbers are judgement, not measured.
TIMES_THE_SLOWEST = 20.0
"""Times the slowest epoch so far: configurations of one space often differ by a factor of ten in their time (width,
batch size), and hardly ever by twenty."""
LEAST_SECONDS = 30 * 60.0
"""The lowest limit: below it a busy machine makes more of a difference than the configuration."""
FIRST_SECONDS = 12 * 3600.0
"""The limit before any epoch was reported, when nothing is known."""


class EpochClock:
    """Measures, for the trials that have a worker, the time from one report to the next.

    `minutes`: the limit of one epoch; 0: there is no limit; None: it follows from the slowest epoch so far. `clock`:
    seconds. Not thread safe.
    """

    def __init__(self, minutes: float | None, clock: Callable[[], float]) -> None:
        self._minutes, self._clock = minutes, clock
        self._at: dict[int, tuple[int, float]] = {}  # by trial number: the epoch that it is at, and since when
        self._slowest = 0.0

    def begin(self, trial: int, epochs_done: int) -> None:
        """A worker trains the trial. Calling it again for the same worker changes nothing."""
        self._at.setdefault(trial, (epochs_done + 1, self._clock()))

    def report(self, trial: int, epochs: int) -> None:
        """The trial has reported so many epochs at once."""
        if trial not in self._at or not epochs:
            return
        (epoch, since), now = self._at[trial], self._clock()
        self._slowest = max(self._slowest, (now - since) / epochs)
        self._at[trial] = epoch + epochs, now

    def end(self, trial: int) -> None:
        """The trial has ended, was paused, or has lost its worker."""
        self._at.pop(trial, None)

    @property
    def is_idle(self) -> bool:
        """Whether no trial has a worker."""
        return not self._at

    def overdue_text(self, trial: int) -> str | None:
        """A sentence about a trial that has been at one epoch for longer than the limit; None for any other trial."""
        limit = self._limit_seconds()
        if trial not in self._at or not limit:
            return None
        epoch, since = self._at[trial]
        took = self._clock() - since
        text = f"epoch {epoch} was not reported within {duration(took)}, and the limit is {self._limit_text()}"
        return text if took > limit else None

    def _limit_seconds(self) -> float:
        if self._minutes is not None:
            return self._minutes * 60
        return max(LEAST_SECONDS, TIMES_THE_SLOWEST * self._slowest) if self._slowest else FIRST_SECONDS

    def _limit_text(self) -> str:
        text = duration(self._limit_seconds())
        if self._minutes is not None:
            return f"{text} (budget.epoch_minutes)"
        why = f"the slowest epoch took {duration(self._slowest)}" if self._slowest else "before any epoch was reported"
        return f"{text} ({why}; set budget.epoch_minutes for another)"


def duration(seconds: float) -> str:
    """Seconds as a text with a unit: 0.3 s, 45 s, 2.5 min, 12 h."""
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
