"""Folds a part of an event log into one change for each MLflow run. Pure.

Folding decides what repetitions and restarts mean: an epoch that was reported before is dropped (the first report
counts), of several states the last one counts, and the end of a study ends its open trials.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dialin.events.types import EpochReported, Event, StudyEnded, StudyStarted, TrialEnded, TrialStarted
from dialin.specification.domains import Scalar
from dialin.texts import printable, scalar_text, shorten
from dialin.tracking.cursor import Cursor

STATUS = {
    "complete": "FINISHED",
    "stopped": "KILLED",
    "diverged": "KILLED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
RUNNING = "RUNNING"
PAUSED = "waiting"  # the state of a trial that stopped training and may continue
PARAM_CHARACTERS = 6000  # MLflow refuses a longer one, and all that is sent with it


@dataclass(frozen=True)
class Point:
    """One value of a metric.

    name: the metric's name.
    value: may be NaN or infinite.
    time: milliseconds since 1970. It is the event's time, so that MLflow keeps a point once that is sent twice.
    step: the epoch.
    """

    name: str
    value: float
    time: int
    step: int


@dataclass
class Change:
    """What is to be written to one run of MLflow. Times are in milliseconds since 1970.

    trial: the number of the trial that the run shows; None for the run of the study.
    started_at: the run's start, if it has to be made.
    points: values of metrics.
    params: params of the run.
    tags: tags of the run.
    files: paths of artifacts.
    status: MLflow's status of the run; None leaves it as it is.
    ended_at: when the run ended.
    rebuilt: whether some points have other times than the first report of them, so that MLflow may have them already.
    """

    trial: str | None
    started_at: int
    points: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    status: str | None = None
    ended_at: int | None = None
    rebuilt: bool = False


def fold(events: Iterable[Event], cursor: Cursor) -> list[Change]:
    """What these events change, the study's own run first. Advances `cursor`, except its offset and its run ids."""
    folding = _Folding(cursor)
    for event in events:
        folding.take(event)
    own = folding.changes.pop(None, None)
    return ([own] if own is not None else []) + list(folding.changes.values())


class _Folding:
    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.changes: dict[str | None, Change] = {}

    def take(self, event: Event) -> None:
        """Fold in one event. Decisions and notes change nothing in MLflow."""
        if not self.cursor.study and not isinstance(event, StudyStarted):
            return  # the first line is damaged, so that it is not known which study this event belongs to
        self.cursor.time = event.time
        match event:
            case StudyStarted():
                self._start_study(event)
            case TrialStarted():
                self._start_trial(event)
            case EpochReported():
                self._report(event)
            case TrialEnded():
                self._end_trial(event)
            case StudyEnded():
                self._end_study(event)

    def _start_study(self, event: StudyStarted) -> None:
        self.cursor.study, self.cursor.name = event.study, event.name
        self.cursor.rebuilt = event.rebuilt
        if event.rebuilt:
            self.cursor.epochs, self.cursor.damaged = {}, 0  # every event of the study follows again
        change = self._reopen(None, event.time)
        change.params.update(_texts(event.params))
        change.tags.update(event.tags)

    def _start_trial(self, event: TrialStarted) -> None:
        change = self._reopen(str(event.trial), event.time)
        change.params.update(_texts(event.params))

    def _report(self, event: EpochReported) -> None:
        trial = str(event.trial)
        if event.epoch <= self.cursor.epochs.get(trial, 0):
            return  # a trial that continued from an older checkpoint reports some epochs again
        self.cursor.epochs[trial] = event.epoch
        change = self._reopen(trial, event.time)
        change.points += [Point(name, value, event.time, event.epoch) for name, value in event.metrics.items()]
        change.rebuilt = change.rebuilt or self.cursor.rebuilt

    def _end_trial(self, event: TrialEnded) -> None:
        if event.state == PAUSED:
            return  # its run stays open: it may continue
        self._close(str(event.trial), event.state, event.reason, event.time).tags.update(event.tags)

    def _end_study(self, event: StudyEnded) -> None:
        for trial in list(self.cursor.open):
            self._close(trial, "interrupted", event.reason or "the study ended", event.time)
        change = self._close(None, event.state, event.reason, event.time)
        change.points += [Point(name, value, event.time, 0) for name, value in event.metrics.items()]
        change.tags.update(event.tags)
        change.files += event.artifacts
        self.cursor.ended = True

    def _reopen(self, trial: str | None, time: int) -> Change:
        """The change of a run that is active again, whatever an earlier driver, or its death, made of it."""
        if trial is None or self.cursor.ended:
            self.cursor.ended = False
            self._mark_running(self._change(None, time))
        if trial is not None and trial not in self.cursor.open:
            self.cursor.open.append(trial)
            self._mark_running(self._change(trial, time))
        return self._change(trial, time)

    def _mark_running(self, change: Change) -> None:
        change.status, change.ended_at = RUNNING, None
        change.tags["dialin.state"] = "running"
        known = self.cursor.parent if change.trial is None else change.trial in self.cursor.runs
        if known or "dialin.reason" in change.tags:
            change.tags["dialin.reason"] = "went on"  # replaces why it had ended; MLflow would show an empty tag too

    def _close(self, trial: str | None, state: str, reason: str, time: int) -> Change:
        if trial in self.cursor.open:
            self.cursor.open.remove(trial)
        change = self._change(trial, time)
        change.status, change.ended_at = STATUS.get(state, "FAILED"), time
        change.tags.update({"dialin.state": state, "dialin.reason": reason or state})
        return change

    def _change(self, trial: str | None, time: int) -> Change:
        return self.changes.setdefault(trial, Change(trial, time))


def _texts(params: Mapping[str, Scalar]) -> dict[str, str]:
    """Params as texts, which is what MLflow keeps, in YAML's notation: the best configuration reads the same there."""
    texts = {name: v if isinstance(v, str) else scalar_text(v, digits=None) for name, v in params.items()}
    return {name: shorten(printable(text), PARAM_CHARACTERS) for name, text in texts.items()}
