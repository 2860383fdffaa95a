"""What a part of a spool changes about MLflow's runs, folded so that each run is written once. Pure.

Folding decides what repeats and restarts mean: an epoch that was reported before is dropped (the first report stands),
of several states the last one counts, and a study that ends takes its open trials with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from dialin.specification.domains import Scalar
from dialin.texts import printable, shorten
from dialin.tracking.events import EpochReported, Event, StudyEnded, StudyStarted, TrialEnded, TrialStarted
from dialin.tracking.position import Position

STATUS = {
    "complete": "FINISHED",
    "stopped": "KILLED",
    "diverged": "KILLED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
RUNNING = "RUNNING"
PARAM_CHARACTERS = 6000  # MLflow takes no longer ones, and nothing of a call that has one
PARAM_CHARACTERS = 6000  # MLflow refuses a longer one, and all that is sent with it


@dataclass(frozen=True)
class Point:
    """One value of a metric. `time` in milliseconds since 1970: the event's own, so a point sent twice is one point."""

    name: str
    value: float
    time: int
    step: int


@dataclass
class Change:
    """What is to be written about one run; `trial` None: the study's own. Times in milliseconds since 1970. `rebuilt`:
    there are points whose times are not those of the first report, and MLflow may have some of them already."""

    trial: str | None
    started_at: int
    points: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    status: str | None = None
    ended_at: int | None = None
    rebuilt: bool = False

    def copy(self) -> Change:
        """One that can be used up without this one being so."""
        return replace(self, points=[*self.points], params={**self.params}, tags={**self.tags}, files=[*self.files])


def fold(events: Iterable[Event], position: Position) -> list[Change]:
    """What these events change, the study's own first. Moves `position` on, but not its offset or run ids."""
    folding = _Folding(position)
    for event in events:
        folding.take(event)
    own = folding.changes.pop(None, None)
    return ([own] if own is not None else []) + list(folding.changes.values())


class _Folding:
    def __init__(self, position: Position) -> None:
        self.position = position
        self.changes: dict[str | None, Change] = {}

    def take(self, event: Event) -> None:
        if event["kind"] != "study_started" and not self.position.study:
            return  # the line that began the study is damaged: there is nothing to hang this on
        self.position.time = event["time"]
        if event["kind"] == "study_started":
            self._start_study(event)
        elif event["kind"] == "trial_started":
            self._start_trial(event)
        elif event["kind"] == "epoch":
            self._report(event)
        elif event["kind"] == "trial_ended":
            self._end_trial(event)
        elif event["kind"] == "study_ended":
            self._end_study(event)

    def _start_study(self, event: StudyStarted) -> None:
        self.position.study, self.position.name = event["study"], event["name"]
        self.position.rebuilt = event.get("rebuilt", False)
        if self.position.rebuilt:
            self.position.epochs, self.position.damaged = {}, 0  # all of it is told again
        change = self._reopen(None, event["time"])
        change.params.update(_texts(event["params"]))
        change.tags.update(event["tags"])

    def _start_trial(self, event: TrialStarted) -> None:
        change = self._reopen(str(event["trial"]), event["time"])
        change.params.update(_texts(event["params"]))

    def _report(self, event: EpochReported) -> None:
        trial, epoch, time = str(event["trial"]), event["epoch"], event["time"]
        if epoch <= self.position.epochs.get(trial, 0):
            return  # a trial that went on from an older checkpoint
        self.position.epochs[trial] = epoch
        change = self._reopen(trial, time)
        change.points += [Point(name, value, time, epoch) for name, value in event["metrics"].items()]
        change.rebuilt = change.rebuilt or self.position.rebuilt

    def _end_trial(self, event: TrialEnded) -> None:
        change = self._close(str(event["trial"]), event["state"], event["reason"], event["time"])
        change.tags.update(event.get("tags", {}))  # events of an older spool have none

    def _end_study(self, event: StudyEnded) -> None:
        for trial in list(self.position.open):
            self._close(trial, "interrupted", event["reason"] or "the study ended", event["time"])
        change = self._close(None, event["state"], event["reason"], event["time"])
        change.points += [Point(name, value, event["time"], 0) for name, value in event["metrics"].items()]
        change.tags.update(event["tags"])
        change.files += event["artifacts"]
        self.position.ended = True

    def _reopen(self, trial: str | None, time: int) -> Change:
        """The change of a run that is under way, whatever an earlier driver, or its death, had made of it."""
        if trial is None or self.position.ended:
            self.position.ended = False
            self._mark_running(self._change(None, time))
        if trial is not None and trial not in self.position.open:
            self.position.open.append(trial)
            self._mark_running(self._change(trial, time))
        return self._change(trial, time)

    def _mark_running(self, change: Change) -> None:
        change.status, change.ended_at = RUNNING, None
        change.tags["dialin.state"] = "running"
        known = self.position.parent if change.trial is None else change.trial in self.position.runs
        if known or "dialin.reason" in change.tags:
            change.tags["dialin.reason"] = "went on"  # in place of why it had ended; MLflow shows an empty tag as well

    def _close(self, trial: str | None, state: str, reason: str, time: int) -> Change:
        if trial in self.position.open:
            self.position.open.remove(trial)
        change = self._change(trial, time)
        change.status, change.ended_at = STATUS.get(state, "FAILED"), time
        change.tags.update({"dialin.state": state, "dialin.reason": reason or state})
        return change

    def _change(self, trial: str | None, time: int) -> Change:
        return self.changes.setdefault(trial, Change(trial, time))


def _texts(params: Mapping[str, Scalar]) -> dict[str, str]:
    """As YAML writes them: MLflow keeps texts, and the best configuration should read the same there."""
    named = {None: "null", True: "true", False: "false"}
    texts = {name: named[v] if v is None or isinstance(v, bool) else str(v) for name, v in params.items()}
    return {name: shorten(printable(text), PARAM_CHARACTERS) for name, text in texts.items()}
