"""Early stopping as a study uses it: one strategy, which decides at rungs and promotes paused trials.

The arithmetic is in `asha`; with several metrics or constraints, both are in `front_rungs`. `make_early_stopping`
chooses the strategy that a plan asks for; a new one is a class here and a line there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from dialin.planning.plan import Plan
from dialin.search.asha import Asha, Promotions
from dialin.search.decision import Action, Cause, Decision
from dialin.search.front_rungs import FrontPromoting, FrontStopping
from dialin.search.goals import Goals
from dialin.search.rung_forms import NOTHING, Curves, PromotingForm, StoppingForm


class EarlyStopping(Protocol):
    """The rungs of one study. Knows no storage; values are finite. Not thread safe.

    `others`: what decides beside the first metric (`goals.Goals.further`), by name. With one metric and no constraint
    it is not used.
    """

    def decide(
        self, trial: int, epoch: int, rung: int, value: float, others: Mapping[str, float] = NOTHING
    ) -> Decision:
        """Record that a trial has reached a rung, at `epoch` with `value`, and decide whether it trains on."""

    def decide_again(
        self, trial: int, epoch: int, rung: int, value: float, others: Mapping[str, float] = NOTHING
    ) -> Decision:
        """Decide for a trial that continues after a restart, and whose value at the rung was recorded before."""

    def record(self, trial: int, rung: int, value: float, others: Mapping[str, float] = NOTHING) -> None:
        """Record that a trial has reached a rung and ends there for another reason."""

    def recover(
        self,
        trial: int,
        values: Mapping[int, float],
        began: int,
        *,
        unfinished: bool,
        can_grow: bool,
        others: Curves = NOTHING,
    ) -> None:
        """Record a stored trial, which began after epoch `began`.

        `unfinished`: it has not ended; `can_grow`: it was complete at a shorter length than trials have now. The
        strategy may pause either at the rung of its last epoch.
        """

    def next(self, *, round_up: bool = False) -> int | None:
        """The number of the paused trial to train on next; None: there is none. `round_up`: more may be promoted, since
        no new trial will come."""

    def remove(self, trial: int) -> None:
        """A trial is not paused any more: it trains on, or has ended."""

    @property
    def paused(self) -> Mapping[int, int]:
        """The paused trials, each with its rung."""

    def final_decision(self, trial: int, epoch: int, value: float | None) -> Decision:
        """The decision that ends a paused trial when the study ends: early stopping, or the study's end where the trial
        was among those that may be promoted. `epoch`, `value`: its last ones at its rung."""


def make_early_stopping(plan: Plan) -> EarlyStopping:
    """The strategy of a plan. Without early stopping there are no rungs, and it never decides."""
    asha = plan.spec.early_stopping.asha
    if not Goals.of(plan.spec).is_single:
        return FrontPromoting(plan) if asha is not None and asha.type == "promotion" else FrontStopping(plan)
    return Promoting(plan) if asha is not None and asha.type == "promotion" else Stopping(plan)


class Promoting(PromotingForm):
    """ASHA in the form of its paper: a trial is paused at each rung until it is among the best there."""

    def __init__(self, plan: Plan) -> None:
        self._metric = plan.spec.objective.metric
        self._promotions = _promotions(plan)
        super().__init__(self._promotions)

    def decide(
        self, trial: int, epoch: int, rung: int, value: float, others: Mapping[str, float] = NOTHING
    ) -> Decision:
        """Continue if the trial is among the first floor(n / reduction_factor) of the rung, else pause."""
        self._promotions.record(rung, trial, value)
        rank, _ = self._promotions.rank(rung, trial)
        action: Action = "pause"
        if rank <= self._promotions.quota(rung):
            self._promotions.remove(trial)
            action = "continue"
        return self._ranked(action, "rung_rank", trial, epoch, rung, value)

    def recover(
        self,
        trial: int,
        values: Mapping[int, float],
        began: int,
        *,
        unfinished: bool,
        can_grow: bool,
        others: Curves = NOTHING,
    ) -> None:
        """Rank the trial at the rungs that it has reached, and pause it if its last epoch was one."""
        self._promotions.replay(trial, values, began, unfinished or can_grow)

    def final_decision(self, trial: int, epoch: int, value: float | None) -> Decision:
        """A stop: early stopping where the rank is beyond the quota, rounded up; else the study's end."""
        rung = self._promotions.paused[trial]
        rank, _ = self._promotions.rank(rung, trial)
        can_be_promoted = rank <= self._promotions.quota(rung, round_up=True)
        return self._ranked("stop", "study_ended" if can_be_promoted else "rung_rank", trial, epoch, rung, value)

    def _ranked(self, action: Action, cause: Cause, trial: int, epoch: int, rung: int, value: float | None) -> Decision:
        rank, of = self._promotions.rank(rung, trial)
        quota = self._promotions.quota(rung, round_up=True)
        return Decision(action, cause, epoch, self._metric, value, rung=rung, rank=rank, of=of, quota=quota)


class Stopping(StoppingForm):
    """ASHA in the form that Ray Tune calls AsyncHyperBandScheduler: a trial is stopped at a rung where it is worse than
    the cutoff of the values that were there before it."""

    def __init__(self, plan: Plan) -> None:
        self._metric = plan.spec.objective.metric
        asha = plan.spec.early_stopping.asha
        factor = asha.reduction_factor if asha is not None else 2.0
        self._asha = Asha(plan.rungs, factor, plan.spec.objective.mode == "max")
        self._extended = _promotions(plan)
        super().__init__(self._extended)

    def decide(
        self, trial: int, epoch: int, rung: int, value: float, others: Mapping[str, float] = NOTHING
    ) -> Decision:
        """Stop if the value is worse than the cutoff of the values before it; then record it."""
        decision = self._judge(epoch, rung, value, recorded=False)
        self._asha.record(rung, value)
        return decision

    def decide_again(
        self, trial: int, epoch: int, rung: int, value: float, others: Mapping[str, float] = NOTHING
    ) -> Decision:
        """The same without the trial's own value, which `recover` has recorded."""
        return self._judge(epoch, rung, value, recorded=True)

    def record(self, trial: int, rung: int, value: float, others: Mapping[str, float] = NOTHING) -> None:
        """Add the value to those of the rung."""
        self._asha.record(rung, value)

    def recover(
        self,
        trial: int,
        values: Mapping[int, float],
        began: int,
        *,
        unfinished: bool,
        can_grow: bool,
        others: Curves = NOTHING,
    ) -> None:
        """Record the values; a trial of the shorter length is paused where its last epoch is a rung."""
        self._asha.replay(values, began)
        self._extended.replay(trial, values, began, can_grow)

    def _judge(self, epoch: int, rung: int, value: float, recorded: bool) -> Decision:
        verdict = self._asha.judge(rung, value, recorded=recorded)
        action: Action = "stop" if verdict.stop else "continue"
        of, cutoff = verdict.compared, verdict.cutoff
        return Decision(action, "rung_cutoff", epoch, self._metric, value, rung=rung, of=of, cutoff=cutoff)


def _promotions(plan: Plan) -> Promotions:
    asha = plan.spec.early_stopping.asha
    factor = asha.reduction_factor if asha is not None else 2.0
    return Promotions(plan.rungs, factor, plan.spec.objective.mode == "max")
