"""What the two forms of ASHA do in the same way with one metric and with several. Base classes of the strategies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dialin.search.asha import PausedAtRungs
from dialin.search.decision import Decision

Curves = Mapping[str, Mapping[int, float]]
"""Values by name and epoch."""
NOTHING: Mapping[str, Any] = {}
"""What a report has beside its value, with one metric and no constraint."""


class _Form:
    """Implements what of `early_stopping.EarlyStopping` is about paused trials."""

    def __init__(self, waiting: PausedAtRungs) -> None:
        self._waiting = waiting

    def next(self, *, round_up: bool = False) -> int | None:
        """The best of the paused trials that may be trained on, at the highest rung."""
        return self._waiting.next(round_up)

    def remove(self, trial: int) -> None:
        """The trial is not paused any more."""
        self._waiting.remove(trial)

    @property
    def paused(self) -> Mapping[int, int]:
        """The trials that are paused at a rung."""
        return self._waiting.paused


class PromotingForm(_Form):
    """A trial is paused at each rung until it is among the best there."""

    def decide_again(
        self, trial: int, epoch: int, rung: int, value: float, others: Mapping[str, float] = NOTHING
    ) -> Decision:
        """Continue: `recover` pauses the trials whose last epoch was a rung; one that is asked here is past it."""
        return Decision("continue", "between_rungs", epoch)

    def record(self, trial: int, rung: int, value: float, others: Mapping[str, float] = NOTHING) -> None:
        """Nothing: a trial that ends for another reason is not a candidate for promotion."""


class StoppingForm(_Form):
    """A trial is stopped at a rung where it is not good enough. None is paused but those that were complete at a
    shorter length, in a study that was extended: they continue by rank."""

    def final_decision(self, trial: int, epoch: int, value: float | None) -> Decision:
        """A stop with the study: this form pauses no trial that early stopping could end."""
        return Decision("stop", "study_ended", epoch)
