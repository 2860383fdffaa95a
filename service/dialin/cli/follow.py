"""Follows a study that another process drives, on the terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console

from dialin.errors import ProtocolError
from dialin.lifecycle import TrialState
from dialin.planning.plan import plan_elsewhere
from dialin.schemas import Event, Study, StudyInFull
from dialin.search.decision import Decision
from dialin.search.records import Trial
from dialin.specification import spec_of_study
from dialin.study_flow.progress import Progress, StudyClock


def follow(console: Console, study: StudyInFull, events: Iterable[Event]) -> None:
    """Show what happens in a study until its events end."""
    clock = StudyClock(study.started_at or time.time())
    with Progress(console, clock, late=True) as progress:
        replay = Replay(progress, study, clock)
        for event in events:
            replay.take(event)


class Replay:
    """Tells the terminal's progress what a study's events say.

    The events of the past arrive at once; they have taken the time since the study's start, which `clock` shows until
    the first of them has been told.
    """

    def __init__(self, progress: Progress, study: StudyInFull, clock: StudyClock) -> None:
        self._progress = progress
        self._study: Study = study
        self._concurrency = study.concurrency  # the events of a folder say nothing of it
        self._spec = spec_of_study(study.id, study.spec)
        self._clock = clock
        self._is_planned = False
        self._trials: dict[int, Trial] = {}
        self._told = ""

    def take(self, event: Event) -> None:
        """Tell of one event. An event of an unknown kind is ignored. Raises ProtocolError for one that cannot be
        read."""
        try:
            self._take(event.kind, event.data)
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"an event {event.kind!r} cannot be read: {error!r}") from error

    def _take(self, kind: str, data: Mapping[str, Any]) -> None:
        match kind:
            case "note":
                self._progress.note(str(data["text"]))
            case "study":
                self._study = Study.model_validate(data)
                self._tell_state()
            case "trial_started":
                self._plan()
                trial = Trial(int(data["trial"]), data["params"], 0, int(data.get("epochs", 0)))
                self._trials[trial.number] = trial
                self._progress.trial_started(trial)
                self._clock.run()
            case "epoch":
                value = math.nan if data["value"] is None else float(data["value"])
                others = {name: math.nan if each is None else float(each) for name, each in _others(data).items()}
                self._progress.epoch_done(self._trial(data), int(data["epoch"]), value, others)
            case "trial_ended":
                self._progress.trial_ended(self._trial(data), _decision(data))

    def _tell_state(self) -> None:
        """Say where the study stands when that has changed. Once trials are told of, they say it better."""
        study = self._study
        line = study.line() if study.state == "running" else f"study {study.id} is {study.state.value}"
        if not study.ended and line != self._told and not self._trials:
            self._told = line
            self._progress.note(line)

    def _plan(self) -> None:
        """Announce the study with its first trial: how many run at a time is known only by then on a server."""
        if not self._is_planned:
            self._is_planned = True
            concurrency = self._study.concurrency or self._concurrency
            self._progress.planned(self._study.id, plan_elsewhere(self._spec, concurrency), ())

    def _trial(self, data: Mapping[str, Any]) -> Trial:
        number = int(data["trial"])
        return self._trials.get(number) or Trial(number, {}, 0)


def _others(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a report has beside its value; nothing for one metric without constraints."""
    return data.get("others") or {}


def _decision(data: Mapping[str, Any]) -> Decision:
    """Why a trial ended; of an older server, which says it in words alone, the words."""
    if data.get("decision"):
        return Decision.from_data(data["decision"])
    return Decision.of_state(TrialState(data["state"]), str(data["reason"]))
