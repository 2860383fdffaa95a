"""One search over one space: ask for a trial, report its epochs, tell its end.

    study = Study.open(plan, open_storage(url), "digits-4f7k2m")
    while (trial := study.ask()) is not None:
        for epoch in range(trial.epochs_done + 1, plan.spec.budget.epochs + 1):
            decision = study.report(trial, epoch, train_one_epoch(trial))
            if not decision.continues:
                study.tell(trial, decision)
                break

A trial that is paused comes back from a later `ask`, with the epochs it has done and its checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from functools import cache

from optuna.storages import BaseStorage
from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial

from dialin.lifecycle import TRIAL_ENDED, TrialState
from dialin.planning.plan import Plan
from dialin.planning.seeds import seed_of_trial
from dialin.search.asha import reached
from dialin.search.decision import Decision, json_numbers
from dialin.search.distributions import OptunaSpace
from dialin.search.front import PlacedTrial, front_of
from dialin.search.goals import Goals
from dialin.search.incumbent import incumbent_of
from dialin.search.prefetch import Prefetcher
from dialin.search.records import Observation, Trial, TrialRecord
from dialin.search.recovery import TrialProgress, recover
from dialin.search.rung_forms import NOTHING
from dialin.search.storage import find_or_create_study, name_metrics
from dialin.search.suggester import Suggester
from dialin.search.trial_rows import (
    CHECKPOINT,
    CONTINUES,
    DECISION,
    FINDINGS,
    METRICS,
    OTHERS,
    PARAMS,
    REPEATED,
    SEED,
    read_trials,
)
from dialin.search.trial_writer import make_trial_writer
from dialin.specification import active_params
from dialin.specification.domains import Scalar
from dialin.specification.findings import Finding

_OPTUNA_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.STOPPED: OptunaState.PRUNED,
    TrialState.DIVERGED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}


class Study:
    """A search over one Optuna study.

    The storage is the truth: what a method has stored when it returns survives the process, and another Study over the
    same storage agrees with this one. Knows no Ray and no torch.

    Ownership: one Study at a time may write to an Optuna study; the lease of `store.leases` sees to that, not this
    class. It keeps the trials in memory and does not notice what others write. The storage belongs to the caller, who
    closes it after the study.

    Thread safety: none. All methods are for one thread; with `prefetch` suggestions are made in another one, which
    `close` ends.

    Errors: every method raises DatabaseError where the database of the storage cannot be read or written, and
    FencedError where the storage is fenced and another driver has the study. After either, open the study again.

    It uses `optuna.storages.BaseStorage` directly, which Optuna says library users should not do: a trial can then be
    asked for without Optuna's sampler, and a paused one is WAITING again after it was RUNNING. Hence no other Optuna
    process may optimize the same study: its `ask` would take paused trials.

    `others`: trials of finished studies over an overlapping space, for the sampler to learn from. `prefetch`:
    suggestions are made ahead of time; without it the same seed gives the same trials.
    """

    def __init__(
        self,
        plan: Plan,
        storage: BaseStorage,
        optuna_id: int,
        others: Sequence[Observation] = (),
        prefetch: bool = False,
    ) -> None:
        self._plan = plan
        self._storage, self._id = storage, optuna_id
        self._goals = Goals.of(plan.spec)
        self._writer = make_trial_writer(storage, optuna_id)
        self._suggester = Suggester(plan, others)
        self._space = OptunaSpace(plan.spec, self._suggester.encoding)
        self._prefetcher = Prefetcher(self._suggester.suggest_batch) if prefetch else None
        self._reports = 0
        self._state = recover(plan, storage, optuna_id, self._writer)

    @classmethod
    def open(
        cls,
        plan: Plan,
        storage: BaseStorage,
        study_id: str,
        others: Sequence[Observation] = (),
        prefetch: bool = False,
    ) -> Study:
        """The study of that id; it is created when the storage has none. Raises UnreadableError for a study with rows
        that hold what no version has written."""
        optuna_id = find_or_create_study(storage, study_id, plan.spec.metrics)
        name_metrics(storage, study_id, [metric.name for metric in plan.spec.metrics])
        return cls(plan, storage, optuna_id, others, prefetch)

    def close(self) -> None:
        """End the thread that makes suggestions ahead of time. The storage stays open."""
        if self._prefetcher is not None:
            self._prefetcher.close()

    def ask(self) -> Trial | None:
        """The next trial to train: one that an earlier driver left unfinished, else a paused one that is among the best
        of its rung, else a new one. None: there is none now; `finished` says whether there may be one later."""
        state = self._state
        while state.unfinished:
            trial = self._go_on(state.unfinished.pop(0))
            if trial is not None:
                return trial
        if state.extendable:
            return self._continue_training(state.extendable.pop(0))
        number = state.early_stopping.next()
        if number is not None:
            return self._promote(number)
        if not self._has_new:
            return self._promote(state.early_stopping.next(round_up=True))
        return self._new()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train and nothing is being trained."""
        state = self._state
        idle = not (state.running or state.unfinished or state.extendable)
        return idle and not self._has_new and state.early_stopping.next(round_up=True) is None

    @property
    def has_values(self) -> bool:
        """Whether any trial has ever reported."""
        return any(observation.values for observation in self._state.observations.values())

    @property
    def exhausted(self) -> bool:
        """Whether every configuration of the space has been tried, though the budget has more trials."""
        return self._state.is_exhausted

    def report(self, trial: Trial, epoch: int, value: float, others: Mapping[str, float] = NOTHING) -> Decision:
        """Store the metric after `epoch` (from 1), then decide. What has returned is stored.

        `others`: with several metrics or constraints, the values of `Goals.further` by name; stored with the metric, in
        one transaction. A value that is not finite ends the trial as diverged, whichever it is.

        An epoch that was reported before keeps its first value: a trial that continues from an older checkpoint trains
        epochs again. Raises KeyError for a trial that is not being trained: not handed out by `ask`, paused, or ended.
        """
        number, state = trial.number, self._state
        if number not in state.running:
            raise KeyError(f"trial {number} is not being trained")
        observation, progress = state.observations[number], state.progress[number]
        if epoch in observation.values or epoch <= progress.began:
            progress.repeated += 1
            self._writer.set_attribute(progress.storage_id, REPEATED, progress.repeated)
            return Decision("continue", "reported_before", epoch)
        before = max(observation.values, default=progress.began)
        state.observations[number] = self._store(observation, progress.storage_id, epoch, value, others)
        self._reports += 1
        self._prepare()
        return self._decide(number, before, epoch)

    def _store(
        self, observation: Observation, storage_id: int, epoch: int, value: float, others: Mapping[str, float]
    ) -> Observation:
        """Store a report; the observation with it."""
        values = {**observation.values, epoch: value}
        further = self._goals.further
        if not further:
            self._writer.set_value(storage_id, epoch, value)
            return Observation(observation.params, values, observation.state)
        found = {name: others[name] for name in further}
        with self._writer.batch():
            self._writer.set_value(storage_id, epoch, value)
            self._writer.set_attribute(storage_id, f"{OTHERS}{epoch}", json_numbers(found))
        curves = {name: {**observation.others.get(name, {}), epoch: found[name]} for name in further}
        return Observation(observation.params, values, observation.state, curves)

    def batch(self) -> AbstractContextManager[None]:
        """What is reported, recorded and told inside the block is stored in one transaction at its end: all of it or
        nothing. A block that raises leaves this object ahead of its storage; open the study again."""
        return self._writer.batch()

    def tell(self, trial: Trial, decision: Decision) -> None:
        """Carry out a decision that ends a trial, or pauses it, and store it with the trial. Telling twice is harmless:
        the first end stays. Raises ValueError for a decision to continue."""
        number, state = trial.number, self._state
        if state.observations[number].state in TRIAL_ENDED:
            return
        if decision.continues:
            raise ValueError(f"trial {number} trains on ({decision.text()}); only a pause or an end can be told")
        if decision.action == "pause":
            self._set_state(number, TrialState.WAITING, OptunaState.WAITING)
            self._prepare()
            return
        if decision.action == "complete" and self._goals.point_of(state.observations[number]) is None:
            decision = Decision("diverge", "no_finite_value")
        end = decision.state
        with self._writer.batch():
            self._writer.set_attribute(state.progress[number].storage_id, DECISION, decision.to_data())
            self._store_constraints(number)
            self._set_state(number, end, _OPTUNA_STATES[end], self._final_values(number, end))
        state.early_stopping.remove(number)
        self._prepare()

    def interrupt(self, trial: Trial) -> None:
        """Pause a trial that has not ended: it continues, from its checkpoint, when the study is resumed."""
        self.tell(trial, Decision("pause", "interrupted"))

    def put_back(self, trial: Trial) -> None:
        """Pause a trial whose worker is gone: it is the next that `ask` returns, from its checkpoint."""
        self.interrupt(trial)
        self._state.unfinished.append(trial.number)

    def paused(self) -> list[tuple[Trial, Decision]]:
        """The trials that are paused at a rung, each with the decision that ends it, should the study end now."""
        state = self._state
        found = []
        for number, rung in state.early_stopping.paused.items():
            observation = state.observations[number]
            if observation.state is TrialState.WAITING:
                last, value = max(observation.values), observation.values.get(rung)
                found.append((self._trial(number), state.early_stopping.final_decision(number, last, value)))
        return found

    def record_checkpoint(self, trial: Trial, epoch: int, path: str) -> None:
        """Store that the state after `epoch` lies at `path`."""
        progress = self._state.progress[trial.number]
        progress.checkpoint_epoch, progress.checkpoint = epoch, path
        self._writer.set_attribute(progress.storage_id, CHECKPOINT, {"epoch": epoch, "path": path})

    def record_findings(self, trial: Trial, findings: Sequence[Finding]) -> None:
        """Store what the doctor has newly found in a trial; of one code the first finding stays."""
        progress = self._state.progress[trial.number]
        known = {finding.code for finding in progress.findings}
        progress.findings += tuple(finding for finding in findings if finding.code not in known)
        data = [finding.to_data() for finding in progress.findings]
        self._writer.set_attribute(progress.storage_id, FINDINGS, data)

    def record_metrics(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        """Store all metrics of a trial's last epoch."""
        self._writer.set_attribute(self._state.progress[trial.number].storage_id, METRICS, dict(metrics))

    def findings(self, trial: Trial) -> Sequence[Finding]:
        """All that the doctor has found in a trial so far, under earlier drivers too."""
        return self._state.progress[trial.number].findings

    def values(self, trial: Trial) -> Mapping[int, float]:
        """What a trial has reported so far, by epoch."""
        return self._state.observations[trial.number].values

    def best(self) -> TrialRecord | None:
        """The best of the complete trials, as `incumbent` estimates it, or `front` with several metrics or constraints;
        None while none is complete, or while none meets the constraints."""
        found = incumbent_of(self.trials(), self._plan.spec, complete_only=True)
        return None if found is None else found.record

    def front(self) -> list[PlacedTrial]:
        """The Pareto front of the complete trials, as `front.front_of` returns it; with one metric the best one."""
        return front_of(self.trials(), self._goals, complete_only=True)

    def trials(self) -> list[TrialRecord]:
        """Every trial as it is stored, by number."""
        return read_trials(self._storage, self._id)

    @property
    def _has_new(self) -> bool:
        return not self._state.is_exhausted and self._state.new_trials < self._plan.spec.budget.trials

    def _new(self) -> Trial | None:
        """A new trial; where every configuration has been tried, a paused one, or None."""
        state = self._state
        number = len(state.progress)
        if self._prefetcher is None:
            chosen = self._suggester.suggest(number, state.observations)
        else:
            # While nothing runs, no worker waits for this thread, and it can wait for the suggestion that knows most.
            newest = not state.running
            chosen = self._prefetcher.take(number, state.observations, self._reports, newest=newest)
        if chosen is None:
            state.is_exhausted = True
            return self._promote(state.early_stopping.next(round_up=True))
        seed = self._plan.spec.search.trial_seed
        if seed is None:
            seed = seed_of_trial(self._plan.spec.search.seed, number)
        trial = self._create(active_params(self._plan.spec, chosen), TrialProgress(-1, seed), {})
        self._prepare()
        return trial

    def _prepare(self) -> None:
        """Have the next suggestion made ahead of time, where that is done."""
        if self._prefetcher is not None and self._has_new:
            self._prefetcher.prepare(len(self._state.progress), self._state.observations, self._reports)

    def _create(self, params: Mapping[str, Scalar], progress: TrialProgress, attributes: Mapping[str, object]) -> Trial:
        """Store a trial of these parameters, to be trained now."""
        state, parameters = self._state, self._space.parameters(params)
        number = len(state.progress)
        template = create_trial(
            state=OptunaState.RUNNING,
            params=parameters,
            distributions=self._space.distributions(parameters),
            user_attrs={PARAMS: dict(params), SEED: progress.seed, **attributes},
        )
        template.datetime_start = datetime.now()
        progress.storage_id = self._writer.create(template, number)
        state.progress[number] = progress
        state.observations[number] = Observation(params, {}, TrialState.RUNNING)
        state.running.add(number)
        return self._trial(number)

    def _promote(self, number: int | None) -> Trial | None:
        """Train a paused trial on."""
        if number is None:
            return None
        self._state.early_stopping.remove(number)
        if self._state.observations[number].state is TrialState.COMPLETE:
            return self._continue_training(number)
        self._set_state(number, TrialState.RUNNING, OptunaState.RUNNING)
        return self._trial(number)

    def _continue_training(self, number: int) -> Trial:
        """A new trial that continues the training of one that was complete at a shorter length: Optuna never changes
        a trial that has ended."""
        observation, before = self._state.observations[number], self._state.progress[number]
        done = max(observation.values)
        self._state.continuations += 1
        attributes = {
            CONTINUES: {"trial": number, "epochs": done},
            CHECKPOINT: {"epoch": before.checkpoint_epoch, "path": before.checkpoint},
        }
        progress = TrialProgress(-1, before.seed, before.checkpoint_epoch, before.checkpoint, began=done)
        return self._create(observation.params, progress, attributes)

    def _go_on(self, number: int) -> Trial | None:
        """A trial that an earlier driver left; None where its last report already was its end, which is told now."""
        self._set_state(number, TrialState.RUNNING, OptunaState.RUNNING)
        trial, observation = self._trial(number), self._state.observations[number]
        if not observation.values:
            return trial
        last = max(observation.values)
        decision = self._end_of_training(observation, last)
        if decision is None and (rung := reached(self._plan.rungs, last - 1, last)) is not None:
            value, others = observation.values[last], observation.at(last)
            decision = self._state.early_stopping.decide_again(number, last, rung, value, others)
        if decision is None or decision.continues:
            return trial
        self.tell(trial, decision)
        return None

    def _decide(self, number: int, before: int, epoch: int) -> Decision:
        """The decision after a report; `before`: the last epoch that was reported before it."""
        observation = self._state.observations[number]
        decision = self._end_of_training(observation, epoch)
        rung = reached(self._plan.rungs, before, epoch)
        if rung is None:
            return decision or _between_rungs(epoch)
        value, others = observation.values[epoch], observation.at(epoch)
        if decision is None:
            return self._state.early_stopping.decide(number, epoch, rung, value, others)
        if math.isfinite(value):
            self._state.early_stopping.record(number, rung, value, others)
        return decision

    def _end_of_training(self, observation: Observation, epoch: int) -> Decision | None:
        """The decision that ends a trial whatever the others have reached; None: early stopping decides."""
        budget, metric = self._plan.spec.budget, self._goals.metrics[0].name
        value = observation.values[epoch]
        if not math.isfinite(value):
            return Decision("diverge", "not_finite", epoch, metric, value)
        for name, number in observation.at(epoch).items() if observation.others else ():
            if not math.isfinite(number):
                return Decision("diverge", "not_finite", epoch, name, number)
        if budget.target is not None and self._goals.reached(budget, observation, epoch):
            return Decision("complete", "target_reached", epoch, metric, value, cutoff=budget.target)
        if epoch >= budget.epochs:
            return Decision("complete", "all_epochs", budget.epochs)
        return None

    def _trial(self, number: int) -> Trial:
        progress = self._state.progress[number]
        params = self._state.observations[number].params
        return Trial(number, params, progress.seed, progress.checkpoint_epoch, progress.checkpoint)

    def _set_state(self, number: int, state: TrialState, stored: OptunaState, values: Sequence[float] = ()) -> None:
        self._writer.set_state(self._state.progress[number].storage_id, stored, *values)
        self._state.observations[number] = replace(self._state.observations[number], state=state)
        (self._state.running.add if state is TrialState.RUNNING else self._state.running.discard)(number)

    def _final_values(self, number: int, end: TrialState) -> tuple[float, ...]:
        """The values that Optuna's tables have of an ended trial. Of a complete one: its point. Of a pruned one, with
        one metric, the last reported value if it is finite, as Optuna itself stores it; with several, none, as Optuna
        itself does then. Of a failed one none."""
        observation = self._state.observations[number]
        if end is TrialState.COMPLETE:
            point = self._goals.point_of(observation)
            return () if point is None else point.values
        if end is TrialState.FAILED or not observation.values or len(self._goals.metrics) > 1:
            return ()
        last = observation.values[max(observation.values)]
        return (last,) if math.isfinite(last) else ()

    def _store_constraints(self, number: int) -> None:
        """Store how far an ended trial violates each constraint, so that Optuna's own tools know it too."""
        point = self._goals.point_of(self._state.observations[number]) if self._goals.constraints else None
        if point is not None:
            for name, bound in self._goals.constraints.items():
                storage_id = self._state.progress[number].storage_id
                self._writer.set_constraint(storage_id, name, bound.excess(point.bounded[name]))


@cache
def _between_rungs(epoch: int) -> Decision:
    # Most reports end here, and making a record of so many fields takes longer than deciding.
    return Decision("continue", "between_rungs", epoch)
