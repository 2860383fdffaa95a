"""One search over one space: ask for a trial, report its epochs, tell its end.

    study = Study.open(plan, open_storage(url), "digits-4f7k2m")
    while (trial := study.ask()) is not None:
        for epoch in range(trial.epochs_done + 1, plan.spec.budget.epochs + 1):
            decision = study.report(trial, epoch, train_one_epoch(trial))
            if decision.stop:
                break
        study.tell(trial, Outcome(decision.state, decision.reason))

Knows no Ray and no torch. The Optuna storage is the truth: another Study over the same storage agrees with this one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from service.planning import Plan, seed_of_trial
from service.search.asha import Asha
from service.search.records import Decision, Outcome, State, Trial, TrialRecord
from service.search.samplers import Proposer
from service.spec import active_params
from service.spec.domains import Scalar
from service.spec.findings import Finding

PARAMS, SEED, REASON, END, CHECKPOINT, FINDINGS = (
    f"dialin:{key}" for key in ("params", "seed", "reason", "end", "checkpoint", "findings")
)
METRICS = "dialin:metrics"

_END_STATES = {
    State.COMPLETE: TrialState.COMPLETE,
    State.STOPPED: TrialState.PRUNED,
    State.DIVERGED: TrialState.PRUNED,
    State.FAILED: TrialState.FAIL,
}


class Study:
    """A search over one Optuna study. One writer at a time; not thread safe."""

    def __init__(self, plan: Plan, storage: BaseStorage, optuna_id: int) -> None:
        self._plan = plan
        self._storage = storage
        self._id = optuna_id
        self._maximize = plan.spec.objective.mode == "max"
        self._asha = Asha(plan.rungs, _reduction_factor(plan), self._maximize)
        self._proposer = Proposer(plan)
        self._ids: dict[int, int] = {}  # trial number -> the storage's own id
        self._values: dict[int, dict[int, float]] = {}  # of trials that have not ended
        self._unfinished: list[TrialRecord] = []  # left by an earlier driver, to go on first
        self._ended: dict[int, State] = {}
        for record in read_trials(storage, optuna_id):
            self._take_over(record)

    @classmethod
    def open(cls, plan: Plan, storage: BaseStorage, study_id: str) -> Study:
        """The study of that id, made when the storage has none."""
        return cls(plan, storage, _find_or_create(storage, study_id, plan.spec.objective.mode))

    def ask(self) -> Trial | None:
        """The next trial to train: one that an earlier driver left unfinished, else a new one; None: none is left."""
        while self._unfinished:
            trial = self._go_on(self._unfinished.pop(0))
            if trial is not None:
                return trial
        number = len(self._ids)
        if number >= self._plan.spec.budget.trials:
            return None
        chosen = self._proposer.propose(number)
        params = active_params(self._plan.spec, chosen)
        trial = Trial(number, params, self._seed(number))
        parameters = self._proposer.parameters(params)
        template = create_trial(
            state=TrialState.RUNNING,
            params=parameters,
            distributions=self._proposer.distributions(parameters),
            user_attrs={PARAMS: params, SEED: trial.seed},
        )
        template.datetime_start = datetime.now()
        # One transaction: a crash leaves either no trial or a whole one.
        self._ids[number] = self._storage.create_new_trial(self._id, template)
        self._values[number] = {}
        return trial

    def report(self, trial: Trial, epoch: int, value: float) -> Decision:
        """Store the metric after `epoch` (from 1), then decide. What has returned is stored.

        An epoch that was reported before, as a trial does that goes on from an older checkpoint, keeps its first value.
        Raises KeyError for a trial that this study did not hand out or that has ended.
        """
        values = self._values[trial.number]
        if epoch in values:
            return Decision(False, "reported before")
        before = max(values, default=0)
        values[epoch] = value
        self._storage.set_trial_intermediate_value(self._ids[trial.number], epoch, value)
        return self._decide(before, epoch, value)

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Close a trial: complete, stopped, diverged or failed. Telling twice is harmless: the first end stays."""
        if trial.number in self._ended:
            return
        if outcome.state not in _END_STATES:
            raise ValueError(f"a trial ends as one of {', '.join(_END_STATES)}, not {outcome.state}")
        values = self._values[trial.number]
        state, reason = outcome.state, outcome.reason
        best = best_value(values, self._maximize)
        if state is State.COMPLETE and best is None:
            state, reason = State.DIVERGED, "no finite value was reported"
        storage_id = self._ids[trial.number]
        self._storage.set_trial_user_attr(storage_id, REASON, reason)
        self._storage.set_trial_user_attr(storage_id, END, state.value)
        told = [best] if state is State.COMPLETE and best is not None else None
        self._storage.set_trial_state_values(storage_id, _END_STATES[state], told)
        self._ended[trial.number] = state
        del self._values[trial.number]
        self._proposer.observe(TrialRecord(trial.number, state, trial.params, trial.seed, values), best)

    def interrupt(self, trial: Trial) -> None:
        """Put a trial back: it has not ended and goes on, from its checkpoint, when the study is resumed."""
        if trial.number not in self._ended:
            self._storage.set_trial_state_values(self._ids[trial.number], TrialState.WAITING)

    def checkpointed(self, trial: Trial, epoch: int, path: str) -> None:
        """Note that the state after `epoch` lies at `path`."""
        self._storage.set_trial_user_attr(self._ids[trial.number], CHECKPOINT, {"epoch": epoch, "path": path})

    def diagnosed(self, trial: Trial, findings: Sequence[Finding]) -> None:
        """Keep all that the doctor has found in a trial so far."""
        data = [finding.to_data() for finding in findings]
        self._storage.set_trial_user_attr(self._ids[trial.number], FINDINGS, data)

    def measured(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        """Keep all metrics of a trial's last epoch."""
        self._storage.set_trial_user_attr(self._ids[trial.number], METRICS, dict(metrics))

    def best(self) -> TrialRecord | None:
        """The complete trial with the best epoch; the earlier one on a tie; None while none is complete."""
        return best_of(self.trials(), self._plan.spec.objective.mode)

    def trials(self) -> list[TrialRecord]:
        """Every trial as stored, by number."""
        return read_trials(self._storage, self._id)

    @property
    def running(self) -> int:
        return len(self._values) - len(self._unfinished)

    def _seed(self, number: int) -> int:
        search = self._plan.spec.search
        return search.trial_seed if search.trial_seed is not None else seed_of_trial(search.seed, number)

    def _take_over(self, record: TrialRecord) -> None:
        self._ids[record.number] = self._storage.get_trial_id_from_study_id_trial_number(self._id, record.number)
        self._asha.replay(record.values)
        if record.state in _END_STATES:
            self._ended[record.number] = record.state
            self._proposer.observe(record, best_value(record.values, self._maximize))
        else:
            self._values[record.number] = dict(record.values)
            self._unfinished.append(record)

    def _go_on(self, record: TrialRecord) -> Trial | None:
        """A trial that an earlier driver left; None when its last report already was its end, which is told now."""
        trial = Trial(record.number, record.params, record.seed, record.checkpoint_epoch, record.checkpoint)
        if record.state is State.WAITING:
            self._storage.set_trial_state_values(self._ids[record.number], TrialState.RUNNING)
        if not record.values:
            return trial
        last = max(record.values)
        decision = self._verdict(last, record.values[last], self._asha.reached(last - 1, last), recorded=True)
        if not decision.stop:
            return trial
        self.tell(trial, Outcome(decision.state, decision.reason))
        return None

    def _decide(self, before: int, epoch: int, value: float) -> Decision:
        rung = self._asha.reached(before, epoch)
        decision = self._verdict(epoch, value, rung)
        if rung is not None and math.isfinite(value):
            self._asha.record(rung, value)
        return decision

    def _verdict(self, epoch: int, value: float, rung: int | None, recorded: bool = False) -> Decision:
        """What follows from a value; `recorded`: it is itself among those of the rung."""
        budget, metric = self._plan.spec.budget, self._plan.spec.objective.metric
        if not math.isfinite(value):
            return Decision(True, f"{metric} was {value} after epoch {epoch}", State.DIVERGED)
        if budget.target is not None and _reaches(value, budget.target, self._maximize):
            return Decision(True, f"reached the target {budget.target:g} after epoch {epoch}", State.COMPLETE)
        if epoch >= budget.epochs:
            return Decision(True, f"trained all {budget.epochs} epochs", State.COMPLETE)
        if rung is None:
            return Decision(False, "between rungs")
        verdict = self._asha.judge(rung, value, recorded=recorded)
        if verdict.stop and verdict.cutoff is not None:
            better = "below" if self._maximize else "above"
            cutoff = f"{verdict.cutoff:.4g}, the cutoff of rung {rung} over {verdict.compared} trials"
            return Decision(True, f"{metric} {value:.4g} is {better} {cutoff}", State.STOPPED)
        return Decision(False, f"passed rung {rung}")


def _reduction_factor(plan: Plan) -> float:
    asha = plan.spec.early_stopping.asha
    return asha.reduction_factor if asha is not None else 2.0


def _reaches(value: float, target: float, maximize: bool) -> bool:
    return value >= target if maximize else value <= target


def _find_or_create(storage: BaseStorage, study_id: str, mode: str) -> int:
    try:
        return storage.get_study_id_from_name(study_id)
    except KeyError:
        direction = StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE
        return storage.create_new_study([direction], study_id)


def read_trials(storage: BaseStorage, optuna_id: int) -> list[TrialRecord]:
    """Every trial of an Optuna study, by number."""
    trials = storage.get_all_trials(optuna_id, deepcopy=False)
    return sorted((_record(trial) for trial in trials), key=lambda record: record.number)


def read_study(storage: BaseStorage, study_id: str) -> list[TrialRecord]:
    """Every trial of the study of that id; none when the storage does not know it."""
    try:
        return read_trials(storage, storage.get_study_id_from_name(study_id))
    except KeyError:
        return []


def best_value(values: Mapping[int, float], maximize: bool) -> float | None:
    """The best finite value, None when there is none."""
    finite = [value for value in values.values() if math.isfinite(value)]
    if not finite:
        return None
    return max(finite) if maximize else min(finite)


def best_of(records: list[TrialRecord], mode: str, *, complete_only: bool = True) -> TrialRecord | None:
    """The trial with the best epoch, the earlier one on a tie; of the complete ones unless told otherwise."""
    maximize = mode == "max"
    best: tuple[float, TrialRecord] | None = None
    for record in records:
        value = best_value(record.values, maximize)
        if value is None or (complete_only and record.state is not State.COMPLETE):
            continue
        score = value if maximize else -value
        if best is None or score > best[0]:
            best = (score, record)
    return best[1] if best else None


def _record(trial: FrozenTrial) -> TrialRecord:
    checkpoint = trial.user_attrs.get(CHECKPOINT) or {}
    params: Mapping[str, Scalar] = trial.user_attrs.get(PARAMS, trial.params)
    return TrialRecord(
        number=trial.number,
        state=_state(trial),
        params=params,
        seed=trial.user_attrs.get(SEED, 0),
        values=dict(sorted(trial.intermediate_values.items())),
        reason=trial.user_attrs.get(REASON, ""),
        checkpoint=checkpoint.get("path"),
        checkpoint_epoch=checkpoint.get("epoch", 0),
        metrics=trial.user_attrs.get(METRICS, {}),
        findings=tuple(Finding(**found) for found in trial.user_attrs.get(FINDINGS, ())),
        started_at=trial.datetime_start.timestamp() if trial.datetime_start else None,
        ended_at=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
    )


def _state(trial: FrozenTrial) -> State:
    if trial.state is TrialState.PRUNED:
        return State(trial.user_attrs.get(END, State.STOPPED))
    by_optuna = {
        TrialState.WAITING: State.WAITING,
        TrialState.RUNNING: State.RUNNING,
        TrialState.COMPLETE: State.COMPLETE,
        TrialState.FAIL: State.FAILED,
    }
    return by_optuna[optuna.trial.TrialState(trial.state)]
