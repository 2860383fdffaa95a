"""What a study knows of its trials, read back from the storage when the study is opened."""

from __future__ import annotations

from dataclasses import dataclass, field

from optuna.storages import BaseStorage
from optuna.trial import TrialState as OptunaState

from dialin.errors import reading
from dialin.lifecycle import TRIAL_ENDED, TrialState
from dialin.planning.plan import Plan
from dialin.search.early_stopping import EarlyStopping, make_early_stopping
from dialin.search.goals import Goals
from dialin.search.records import Observation, TrialRecord
from dialin.search.trial_rows import read_trials
from dialin.search.trial_writer import TrialWriter
from dialin.specification.findings import Finding


@dataclass
class TrialProgress:
    """What a study keeps of one trial beside its observation."""

    storage_id: int
    """The storage's own id of the trial."""
    seed: int
    """The seed of its training."""
    checkpoint_epoch: int = 0
    """The epoch after which its newest checkpoint was written; 0: there is none."""
    checkpoint: str | None = None
    """Where that checkpoint lies."""
    findings: tuple[Finding, ...] = ()
    """What the doctor has found in it so far."""
    began: int = 0
    """Epochs that were done by the trial whose training it continues."""
    repeated: int = 0
    """Epochs that were trained again after they had been reported."""


@dataclass
class StudyState:
    """Everything a study knows of its trials. The driver's Study changes it, and nothing else does."""

    early_stopping: EarlyStopping
    observations: dict[int, Observation] = field(default_factory=dict)
    """By trial number; each report puts a new one in its place."""
    progress: dict[int, TrialProgress] = field(default_factory=dict)
    """By trial number."""
    running: set[int] = field(default_factory=set)
    """The trials that were handed out and have neither ended nor paused."""
    unfinished: list[int] = field(default_factory=list)
    """The trials that an earlier driver left, or whose worker was lost; they are handed out first."""
    extendable: list[int] = field(default_factory=list)
    """The trials that were complete at a shorter length, in a study without rungs; they are handed out next."""
    continuations: int = 0
    """Trials that continue the training of another one; they do not count against the budget of new trials."""
    is_exhausted: bool = False
    """Whether the sampler has no configuration left that was not tried."""

    @property
    def new_trials(self) -> int:
        """How many trials of the budget there are so far."""
        return len(self.progress) - self.continuations


def recover(plan: Plan, storage: BaseStorage, optuna_id: int, writer: TrialWriter) -> StudyState:
    """The state of a stored study. A trial whose driver has died while it was trained is stored as waiting.

    Raises UnreadableError for rows that hold what no version has written.
    """
    state = StudyState(make_early_stopping(plan))
    with reading("the trials of the study"):
        records = read_trials(storage, optuna_id)
    for record in records:
        storage_id = storage.get_trial_id_from_study_id_trial_number(optuna_id, record.number)
        if record.state is TrialState.RUNNING:
            writer.set_state(storage_id, OptunaState.WAITING)
        _take_over(state, plan, record, storage_id)
    return state


def _take_over(state: StudyState, plan: Plan, record: TrialRecord, storage_id: int) -> None:
    number, has_ended = record.number, record.state in TRIAL_ENDED
    state.observations[number] = Observation(
        record.params, dict(record.values), record.state if has_ended else TrialState.WAITING, record.others
    )
    state.progress[number] = TrialProgress(
        storage_id,
        record.seed,
        record.checkpoint_epoch,
        record.checkpoint,
        record.findings,
        record.began,
        record.repeated,
    )
    if record.continues is not None:
        state.continuations += 1
        state.early_stopping.remove(record.continues)
        state.extendable = [other for other in state.extendable if other != record.continues]
    can_grow = _can_grow(plan, record)
    state.early_stopping.recover(
        number, record.values, record.began, unfinished=not has_ended, can_grow=can_grow, others=record.others
    )
    if can_grow and not plan.rungs:
        state.extendable.append(number)
    if not has_ended and number not in state.early_stopping.paused:
        state.unfinished.append(number)


def _can_grow(plan: Plan, record: TrialRecord) -> bool:
    """Whether a trial was complete at a shorter length than trials have now, and has a checkpoint to continue from."""
    budget, goals = plan.spec.budget, Goals.of(plan.spec)
    if record.state is not TrialState.COMPLETE or record.epochs_done >= budget.epochs or record.checkpoint is None:
        return False
    ended_itself = record.decision is not None and record.decision.cause == "no_more_epochs"
    return not ended_itself and not any(goals.reached(budget, record, epoch) for epoch in record.values)
