"""One search over one space: ask for a trial, report its epochs, tell its end.

    study = Study.open(plan, open_storage(url), "digits-4f7k2m")
    while (trial := study.ask()) is not None:
        for epoch in range(trial.epochs_done + 1, plan.spec.budget.epochs + 1):
            decision = study.report(trial, epoch, train_one_epoch(trial))
            if not decision.continues:
                break
        study.tell(trial, decision)

A trial that is told to wait comes back from a later `ask`, with the epochs it has done and its checkpoint.
Knows no Ray and no torch. The Optuna storage is the truth: another Study over the same storage agrees with this one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import cast

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial

from dialin.errors import reading
from dialin.lifecycle import TrialState
from dialin.planning.plan import Plan
from dialin.planning.seeds import seed_of_trial
from dialin.search.ahead import Ahead
from dialin.search.asha import Asha, Promotions, reached
from dialin.search.decision import Action, Cause, Decision
from dialin.search.ledger import ledger_of
from dialin.search.ranking import best_of, best_value
from dialin.search.records import Seen, Trial, TrialRecord
from dialin.search.samplers import Proposer
from dialin.search.trial_rows import (
    CHECKPOINT,
    CONTINUES,
    DECISION,
    FINDINGS,
    METRICS,
    PARAMS,
    REPEATED,
    SEED,
    read_trials,
)
from dialin.specification import active_params
from dialin.specification.domains import Scalar
from dialin.specification.findings import Finding

_END_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.STOPPED: OptunaState.PRUNED,
    TrialState.DIVERGED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}


@dataclass
class _Kept:
    """What a trial needs to go on."""

    seed: int
    checkpoint: tuple[int, str | None] = (0, None)
    findings: list[Finding] = field(default_factory=list)
    began: int = 0  # epochs done by the trial that it continues
    repeated: int = 0  # epochs trained again after they had been reported


class Study:
    """A search over one Optuna study. One writer at a time; not thread safe.

    `others`: trials of finished studies over an overlapping space, for the sampler to learn from. `ahead`: proposals
    are made in a thread of their own, ahead of time; without it the same seed gives the same trials.
    """

    def __init__(
        self, plan: Plan, storage: BaseStorage, optuna_id: int, others: Sequence[Seen] = (), ahead: bool = False
    ) -> None:
        self._plan = plan
        self._storage = storage
        self._ledger = ledger_of(storage, optuna_id)
        self._id = optuna_id
        self._maximize = plan.spec.objective.mode == "max"
        asha = plan.spec.early_stopping.asha
        factor = asha.reduction_factor if asha is not None else 2.0
        self._promotes = asha is not None and asha.type == "promotion"
        self._asha = Asha(plan.rungs, factor, self._maximize)
        self._promotions = Promotions(plan.rungs, factor, self._maximize)
        self._proposer = Proposer(plan, others)
        self._ahead = Ahead(self._proposer.propose_some) if ahead else None
        self._reports = 0
        self._ids: dict[int, int] = {}  # trial number -> the storage's own id
        self._seen: dict[int, Seen] = {}
        self._kept: dict[int, _Kept] = {}
        self._running: set[int] = set()
        self._unfinished: list[int] = []  # left by an earlier driver, to go on first
        self._outgrown: list[int] = []  # complete at a shorter length, in a study without early stopping
        self._continuations = 0
        self._exhausted = False
        with reading("the trials of the study"):
            records = read_trials(storage, optuna_id)
        for record in records:
            self._take_over(record)

    @classmethod
    def open(
        cls, plan: Plan, storage: BaseStorage, study_id: str, others: Sequence[Seen] = (), ahead: bool = False
    ) -> Study:
        """The study of that id, made when the storage has none."""
        objective = plan.spec.objective
        optuna_id = _find_or_create(storage, study_id, objective.mode)
        _name_metric(storage, study_id, objective.metric)
        return cls(plan, storage, optuna_id, others, ahead)

    def close(self) -> None:
        """End the thread that makes proposals ahead. What is stored stays; the storage stays open."""
        if self._ahead is not None:
            self._ahead.close()

    def ask(self) -> Trial | None:
        """The next trial to train: one that an earlier driver left unfinished, else one that waits at a rung and is
        among the best there, else a new one. None: there is none now; `finished` says whether there may be later."""
        while self._unfinished:
            trial = self._go_on(self._unfinished.pop(0))
            if trial is not None:
                return trial
        if self._outgrown:
            return self._continued(self._outgrown.pop(0))
        number = self._promotions.next()
        if number is not None:
            return self._promoted(number)
        if not self._has_new:
            return self._promoted(self._promotions.next(generous=True))
        return self._new()

    @property
    def has_values(self) -> bool:
        """Whether any trial has ever reported."""
        return any(seen.values for seen in self._seen.values())

    @property
    def exhausted(self) -> bool:
        """Whether every configuration of the space has been tried, though the budget has more."""
        return self._exhausted

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train and nothing is being trained."""
        idle = not (self._running or self._unfinished or self._outgrown)
        return idle and not self._has_new and self._promotions.next(generous=True) is None

    def report(self, trial: Trial, epoch: int, value: float) -> Decision:
        """Store the metric after `epoch` (from 1), then decide. What has returned is stored.

        An epoch that was reported before, as a trial does that goes on from an older checkpoint, keeps its first value.
        Raises KeyError for a trial that is not being trained: not handed out by `ask`, paused, or ended.
        """
        if trial.number not in self._running:
            raise KeyError(f"trial {trial.number} is not being trained")
        values, began = self._values(trial.number), self._kept[trial.number].began
        if epoch in values or epoch <= began:
            self._kept[trial.number].repeated += 1
            self._ledger.set_attribute(self._ids[trial.number], REPEATED, self._kept[trial.number].repeated)
            return Decision("continue", "reported_before", epoch)
        before = max(values, default=began)
        self._ledger.set_value(self._ids[trial.number], epoch, value)
        values[epoch] = value
        self._reports += 1
        self._prepare()
        rung = reached(self._plan.rungs, before, epoch)
        decision = self._verdict(trial.number, epoch, value, rung)
        if rung is not None and math.isfinite(value) and not self._promotes:
            self._asha.record(rung, value)
        return decision

    def batch(self) -> AbstractContextManager[None]:
        """What is reported, noted and told within is stored in one transaction at its end: all of it or nothing. One
        that raises leaves this object ahead of its storage; open the study again."""
        return self._ledger.batch()

    def tell(self, trial: Trial, decision: Decision) -> None:
        """Carry out a decision that ends a trial, or pauses it. Telling twice is harmless: the first end stays. Raises
        ValueError for a decision to continue."""
        number = trial.number
        if self._seen[number].state in _END_STATES:
            return
        if decision.continues:
            raise ValueError(f"trial {number} trains on ({decision.text()}); only a pause or an end can be told")
        if decision.action == "pause":
            self._set(number, TrialState.WAITING, OptunaState.WAITING)
            self._prepare()
            return
        if decision.action == "complete" and best_value(self._values(number), self._maximize) is None:
            decision = Decision("diverge", "no_finite_value")
        state = decision.state
        with self._ledger.batch():
            self._ledger.set_attribute(self._ids[number], DECISION, decision.to_data())
            self._set(number, state, _END_STATES[state], self._final(number, state))
        self._promotions.leave(number)
        self._prepare()

    def interrupt(self, trial: Trial) -> None:
        """Put a trial back: it has not ended and goes on, from its checkpoint, when the study is resumed."""
        self.tell(trial, Decision("pause", "interrupted"))

    def put_back(self, trial: Trial) -> None:
        """A trial whose worker is gone: it is the next that `ask` gives, from its checkpoint."""
        self.interrupt(trial)
        self._unfinished.append(trial.number)

    def paused(self) -> list[tuple[Trial, Decision]]:
        """The trials that are paused at a rung, each with the decision that ends it, should the study end now."""
        return [
            (self._trial(number), self._end_at(rung, number))
            for number, rung in self._promotions.waiting.items()
            if self._seen[number].state is TrialState.WAITING
        ]

    def checkpointed(self, trial: Trial, epoch: int, path: str) -> None:
        """Note that the state after `epoch` lies at `path`."""
        self._kept[trial.number].checkpoint = (epoch, path)
        self._ledger.set_attribute(self._ids[trial.number], CHECKPOINT, {"epoch": epoch, "path": path})

    def diagnosed(self, trial: Trial, findings: Sequence[Finding]) -> None:
        """Keep what the doctor has newly found in a trial; of one kind the first."""
        known = self._kept[trial.number].findings
        known += [finding for finding in findings if finding.code not in {other.code for other in known}]
        data = [finding.to_data() for finding in known]
        self._ledger.set_attribute(self._ids[trial.number], FINDINGS, data)

    def findings(self, trial: Trial) -> Sequence[Finding]:
        """All that the doctor has found in a trial so far, by an earlier driver too."""
        return tuple(self._kept[trial.number].findings)

    def measured(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        """Keep all metrics of a trial's last epoch."""
        self._ledger.set_attribute(self._ids[trial.number], METRICS, dict(metrics))

    def values(self, trial: Trial) -> Mapping[int, float]:
        """What a trial has reported so far, by epoch."""
        return self._seen[trial.number].values

    def best(self) -> TrialRecord | None:
        """The best of the complete trials, as `ranking` has it; None while none is complete."""
        return best_of(self.trials(), self._plan.spec.objective.mode, complete_only=True)

    def trials(self) -> list[TrialRecord]:
        """Every trial as stored, by number."""
        return read_trials(self._storage, self._id)

    @property
    def _has_new(self) -> bool:
        return not self._exhausted and len(self._ids) - self._continuations < self._plan.spec.budget.trials

    def _new(self) -> Trial | None:
        """A new trial; where the space has no more, one that waits, or None."""
        number = len(self._ids)
        if self._ahead is None:
            chosen = self._proposer.propose(number, self._seen)
        else:
            # While nothing runs nobody waits for the driver, and it can wait for what knows of everything.
            chosen = self._ahead.take(number, self._seen, self._reports, newest=not self._running)
        if chosen is None:
            self._exhausted = True
            return self._promoted(self._promotions.next(generous=True))
        trial = self._create(active_params(self._plan.spec, chosen), _Kept(self._seed(number)), {})
        self._prepare()
        return trial

    def _prepare(self) -> None:
        """Have the next proposal made, where that is done ahead."""
        if self._ahead is not None and self._has_new:
            self._ahead.prepare(len(self._ids), self._seen, self._reports)

    def _create(self, params: Mapping[str, Scalar], kept: _Kept, attributes: Mapping[str, object]) -> Trial:
        """A trial of these parameters, stored."""
        number, parameters = len(self._ids), self._proposer.parameters(params)
        template = create_trial(
            state=OptunaState.RUNNING,
            params=parameters,
            distributions=self._proposer.distributions(parameters),
            user_attrs={PARAMS: dict(params), SEED: kept.seed, **attributes},
        )
        template.datetime_start = datetime.now()
        # One transaction: a crash leaves either no trial or a whole one.
        self._ids[number] = self._ledger.create(template, number)
        self._seen[number] = Seen(params, {}, TrialState.RUNNING)
        self._kept[number] = kept
        self._running.add(number)
        return self._trial(number)

    def _promoted(self, number: int | None) -> Trial | None:
        """A trial that waited, to be trained on."""
        if number is None:
            return None
        self._promotions.leave(number)
        if self._seen[number].state is TrialState.COMPLETE:
            return self._continued(number)
        self._set(number, TrialState.RUNNING, OptunaState.RUNNING)
        return self._trial(number)

    def _continued(self, number: int) -> Trial:
        """A new trial that goes on where one ended that was complete at a shorter length: Optuna never changes what has
        ended."""
        before = self._kept[number]
        epoch, path = before.checkpoint
        self._continuations += 1
        attributes = {
            CONTINUES: {"trial": number, "epochs": max(self._values(number))},
            CHECKPOINT: {"epoch": epoch, "path": path},
        }
        kept = _Kept(before.seed, before.checkpoint, [], max(self._values(number)))
        return self._create(self._seen[number].params, kept, attributes)

    def _trial(self, number: int) -> Trial:
        kept = self._kept[number]
        epoch, path = kept.checkpoint
        return Trial(number, self._seen[number].params, kept.seed, epoch, path)

    def _values(self, number: int) -> dict[int, float]:
        return cast("dict[int, float]", self._seen[number].values)

    def _set(self, number: int, state: TrialState, stored: OptunaState, value: float | None = None) -> None:
        self._ledger.set_state(self._ids[number], stored, value)
        self._seen[number] = replace(self._seen[number], state=state)
        (self._running.add if state is TrialState.RUNNING else self._running.discard)(number)

    def _final(self, number: int, state: TrialState) -> float | None:
        """The value that Optuna's tables have of an ended trial: of a pruned one the last that was reported, as Optuna
        itself writes it; none where that is not finite, or the trial failed."""
        values = self._values(number)
        if state is TrialState.COMPLETE:
            return best_value(values, self._maximize)
        last = values[max(values)] if values and state is not TrialState.FAILED else math.nan
        return last if math.isfinite(last) else None

    def _seed(self, number: int) -> int:
        search = self._plan.spec.search
        return search.trial_seed if search.trial_seed is not None else seed_of_trial(search.seed, number)

    def _take_over(self, record: TrialRecord) -> None:
        number, values = record.number, dict(record.values)
        self._ids[number] = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        state = record.state if record.state in _END_STATES else TrialState.WAITING
        self._seen[number] = Seen(record.params, values, state)
        checkpoint = (record.checkpoint_epoch, record.checkpoint)
        self._kept[number] = _Kept(record.seed, checkpoint, [*record.findings], record.began, record.repeated)
        self._asha.replay(values, record.began)
        if record.continues is not None:
            self._continuations += 1
            self._promotions.leave(record.continues)
            self._outgrown = [other for other in self._outgrown if other != record.continues]
        outgrown = self._is_outgrown(record)
        self._promotions.replay(number, values, record.began, waits=outgrown or state is TrialState.WAITING)
        if outgrown and not self._plan.rungs:
            self._outgrown.append(number)
        if record.state is TrialState.RUNNING:
            # Its driver has died: it waits, for a rung or for the next worker.
            self._ledger.set_state(self._ids[number], OptunaState.WAITING)
        if state is TrialState.WAITING and not (self._promotes and number in self._promotions.waiting):
            self._unfinished.append(number)

    def _is_outgrown(self, record: TrialRecord) -> bool:
        """Whether a trial was complete at a shorter length than trials have now, and can go on."""
        budget, mode = self._plan.spec.budget, self._plan.spec.objective.mode
        short = record.state is TrialState.COMPLETE and record.epochs_done < budget.epochs
        ended_itself = record.decision is not None and record.decision.cause == "no_more_epochs"
        met = any(budget.reached(value, mode) for value in record.values.values())
        return short and not met and not ended_itself and record.checkpoint is not None

    def _go_on(self, number: int) -> Trial | None:
        """A trial that an earlier driver left; None when its last report already was its end, which is told now."""
        self._set(number, TrialState.RUNNING, OptunaState.RUNNING)
        trial, values = self._trial(number), self._values(number)
        if not values:
            return trial
        last = max(values)
        rung = None if self._promotes else reached(self._plan.rungs, last - 1, last)
        decision = self._verdict(number, last, values[last], rung, recorded=True)
        if decision.continues:
            return trial
        self.tell(trial, decision)
        return None

    def _verdict(self, number: int, epoch: int, value: float, rung: int | None, recorded: bool = False) -> Decision:
        """What follows from a value; `recorded`: it is itself among those of the rung."""
        budget, metric = self._plan.spec.budget, self._plan.spec.objective.metric
        if not math.isfinite(value):
            return Decision("diverge", "not_finite", epoch, metric, value)
        if budget.reached(value, self._plan.spec.objective.mode):
            return Decision("complete", "target_reached", epoch, metric, value, cutoff=budget.target)
        if epoch >= budget.epochs:
            return Decision("complete", "all_epochs", budget.epochs)
        if rung is None:
            return Decision("continue", "between_rungs", epoch)
        return self._rest(number, rung, epoch, value) if self._promotes else self._judge(rung, epoch, value, recorded)

    def _judge(self, rung: int, epoch: int, value: float, recorded: bool) -> Decision:
        verdict = self._asha.judge(rung, value, recorded=recorded)
        return Decision(
            "stop" if verdict.stop else "continue",
            "rung_cutoff",
            epoch,
            self._plan.spec.objective.metric,
            value,
            rung=rung,
            of=verdict.compared,
            cutoff=verdict.cutoff,
        )

    def _rest(self, number: int, rung: int, epoch: int, value: float) -> Decision:
        """Whether a trial goes on from a rung at once, or waits there."""
        self._promotions.record(rung, number, value)
        place, _ = self._promotions.place(rung, number)
        passing = self._promotions.passing(rung)
        if place <= passing:
            self._promotions.leave(number)
        action: Action = "continue" if place <= passing else "pause"
        return self._ranked(action, "rung_rank", rung, number)

    def _end_at(self, rung: int, number: int) -> Decision:
        """The end of a trial that is paused at a rung: early stopping, unless it was among those that may go on."""
        place, _ = self._promotions.place(rung, number)
        may_go_on = place <= self._promotions.passing(rung, generous=True)
        return self._ranked("stop", "study_ended" if may_go_on else "rung_rank", rung, number)

    def _ranked(self, action: Action, cause: Cause, rung: int, number: int) -> Decision:
        place, of = self._promotions.place(rung, number)
        return Decision(
            action,
            cause,
            max(self._values(number)),
            self._plan.spec.objective.metric,
            self._values(number).get(rung),
            rung=rung,
            rank=place,
            of=of,
            quota=self._promotions.passing(rung, generous=True),
        )


def _find_or_create(storage: BaseStorage, study_id: str, mode: str) -> int:
    try:
        return storage.get_study_id_from_name(study_id)
    except KeyError:
        direction = StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE
        return storage.create_new_study([direction], study_id)


def _name_metric(storage: BaseStorage, study_id: str, metric: str) -> None:
    """What Optuna's own tools call the values."""
    found = optuna.load_study(study_name=study_id, storage=storage)
    if found.metric_names != [metric]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            found.set_metric_names([metric])
