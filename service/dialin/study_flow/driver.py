"""The driver of one study: it alone writes the study's storage and event log, and decides when the study is over."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dialin.events.publisher import Publisher
from dialin.events.rebuild import finding_tags
from dialin.events.types import EpochReported, Event, TrialDecided, TrialEnded, TrialStarted, finite
from dialin.planning.plan import Plan
from dialin.search.decision import Decision
from dialin.search.epoch_clock import EpochClock
from dialin.search.failures import are_alike, cause_of, failures_text
from dialin.search.records import Report, Trial, trial_log_name
from dialin.search.study import Study
from dialin.specification.findings import Finding
from dialin.study_flow.signals import Interrupts
from dialin.texts import log_text, one_line

FIRST_FAILURES = 3  # trials that fail alike before any has reported end the study; at least as many as run at a time
MOST_LOSSES = 3  # workers that may die under one trial before the trial is taken for the cause
STARVED_SECONDS = 20.0  # a trial starts in less; trials that wait longer for a worker are reported as starved
LAST_WORD_SECONDS = 10.0  # when a study is over, its trials have so long to report their current epoch
_NOT_ENDED = ("continue", "pause")  # actions


@dataclass(frozen=True)
class DriverControl:
    """How a driver is controlled from outside, and what it calls as it proceeds.

    fence: raises FencedError once another driver has the study; called before anything is written.
    allowance: how many trials may run now, as other studies come and go; None means as many as planned.
    progress: called each time that the loop that drives the study comes round.
    starved: called with whether all running trials wait for a worker, when that changes.
    last_trial_ended: called when no trial runs and none will.
    """

    fence: Callable[[], None] = lambda: None
    allowance: Callable[[], int | None] = lambda: None
    progress: Callable[[], None] = lambda: None
    starved: Callable[[bool], None] = lambda _is: None
    last_trial_ended: Callable[[], None] = lambda: None


class StudyDriver:
    """Joins a study, its event log and those who listen. Implements `search.driver.Driver`; not thread safe.

    plan: the study's plan.
    study: what to try next, and when to stop a trial.
    events: where everything that happens is published.
    logs: the folder of the trials' logs.
    interrupts: delays Ctrl-C and SIGTERM while the study is written.
    control: how the driver is controlled from outside.
    clock: seconds, from any start.
    """

    def __init__(
        self,
        plan: Plan,
        study: Study,
        events: Publisher,
        logs: Path,
        interrupts: Interrupts,
        control: DriverControl = DriverControl(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._study = study
        self._events = events
        self._logs = logs
        self._interrupts = interrupts
        self._control = control
        self._clock = clock
        self._idle_since: float | None = None
        self._starved = False
        self._began = clock()
        self._epochs = EpochClock(plan.spec.budget.epoch_minutes, clock)
        self._over: str | None = None
        self._over_at: float | None = None
        self._live: dict[int, Trial] = {}
        self._failures: list[str] = []
        self._ended = 0  # trials
        self._has_values = study.has_values
        self._further = plan.spec.further
        self._losses: Counter[int] = Counter()
        self._restarted: set[int] = set()  # trials that train epochs again, as far as was published

    @property
    def over(self) -> str | None:
        """Why no more is trained: the hours are up, the target is met, too many trials failed. None: it continues."""
        hours = self._plan.spec.budget.hours
        if self._over is None and hours is not None and self._clock() - self._began >= hours * 3600:
            self._over = f"budget.hours: {hours:g} are up"
        return self._over

    @property
    def is_cut_off(self) -> bool:
        """Whether the study is over, and its trials have had `LAST_WORD_SECONDS` to report."""
        if self.over is None:
            return False
        self._over_at = self._clock() if self._over_at is None else self._over_at
        return self._clock() - self._over_at >= LAST_WORD_SECONDS

    @property
    def finished(self) -> bool:
        """Whether there is nothing to ask for, now and later."""
        return self.over is not None or self._study.finished

    @property
    def broken(self) -> str | None:
        """Why the study has failed: more trials failed than `budget.failures`, or all of the first ones failed alike
        before any had reported. None otherwise."""
        failed, allowed = len(self._failures), self._plan.spec.budget.failures
        said = failures_text(self._failures, self._ended)
        if failed > allowed:
            return f"{said} (budget.failures: {allowed})"
        if failed >= max(FIRST_FAILURES, self._plan.concurrency) and not self._has_values and are_alike(self._failures):
            return f"{said} (none had reported an epoch, so no more were tried)"
        return None

    def ask(self) -> Trial | None:
        """The next trial to train; None if there is none now."""
        if self.over is not None or self._has_its_allowance():
            return None
        with self._writing():
            trial = self._study.ask()
            if trial is not None:
                self._live[trial.number] = trial
                self._events.publish(TrialStarted(trial.number, trial.params, trial.epochs_done))
        return trial

    def _has_its_allowance(self) -> bool:
        allowed = self._control.allowance()
        return allowed is not None and len(self._live) >= max(1, allowed)

    def report_progress(self) -> None:
        """The loop that drives the study has come round once more."""
        self._control.progress()
        waits = bool(self._live) and self._epochs.is_idle
        if not waits:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = self._clock()
        starved = self._idle_since is not None and self._clock() - self._idle_since >= STARVED_SECONDS
        if starved != self._starved:
            self._starved = starved
            self._control.starved(starved)

    def report_working(self, trial: Trial) -> None:
        """A worker trains the trial, which may have waited for one until now."""
        if trial.number in self._live:
            self._epochs.begin(trial.number, trial.epochs_done)

    def find_overdue(self) -> list[tuple[Trial, str]]:
        """Trials whose epoch takes longer than allowed, each with the reason as a sentence."""
        late = ((trial, self._epochs.overdue_text(number)) for number, trial in self._live.items())
        return [(trial, text) for trial, text in late if text is not None]

    def report(self, trial: Trial, reports: Sequence[Report]) -> Decision:
        """Take in epochs of a trial, which are stored on return; ends the trial if the decision is to stop."""
        with self._writing():
            self._epochs.report(trial.number, sum(report.ended is None for report in reports))
            with self._study.batch():
                decision = self._take_in(trial, reports)
                if not decision.continues:
                    self._study.tell(trial, decision)
            # The log says of no trial that it ended before that is stored: the recorder never takes an end back.
            if not decision.continues:
                self._close(trial, decision)
            return decision

    def fail(self, trial: Trial, traceback: str) -> None:
        """End a trial that raised."""
        with self._writing():
            self._fail(trial, traceback, Decision("fail", "exception", detail=cause_of(traceback)))

    def report_lost_worker(self, trial: Trial, reason: str) -> None:
        """A trial's worker died: put the trial back, or end it if that happened too often."""
        with self._writing():
            self._losses[trial.number] += 1
            if self._losses[trial.number] > MOST_LOSSES:
                times = self._losses[trial.number]
                text = f"its worker died {times} times; the last time: {one_line(reason)}"
                self._fail(trial, text, Decision("fail", "worker_lost", detail=text))
                return
            self._study.put_back(trial)
            self._drop(trial)
            why = one_line(reason)
            self._events.note(f"trial {trial.number} lost its worker and continues from its checkpoint: {why}")

    def interrupt(self) -> None:
        """Put back every running trial: a resumed study continues with them."""
        self._control.fence()
        for trial in self._live.values():
            self._study.interrupt(trial)
        for number in sorted({*self._live, *(trial.number for trial, _ in self._study.paused())}):
            self._events.publish(TrialEnded(number, "interrupted", "the study was interrupted"))
        self._live.clear()

    def finish(self) -> None:
        """End the trials that are paused at a rung, or that ran when the study was cut off: nothing more is trained."""
        with self._writing():
            for trial in list(self._live.values()):
                self._end(trial, Decision("stop", "study_ended", detail=self._over or ""))
            for trial, decision in self._study.paused():
                self._end(trial, replace(decision, detail=self._over or ""))

    def _take_in(self, trial: Trial, reports: Sequence[Report]) -> Decision:
        """Store and publish reports up to the first that stops the trial; returns the last decision."""
        happened: list[Event] = []
        for report in reports:
            if report.ended is None:
                decision = self._take_in_epoch(trial, report, happened)
            else:
                if report.metrics:  # none if it started from a checkpoint and had nothing left to train
                    self._study.record_metrics(trial, report.metrics)
                decision = Decision("complete", "no_more_epochs", report.epoch, detail=report.ended)
            if not decision.continues:
                break
        # Before the batch is committed: if the process dies in between, the epochs are trained and logged again, and
        # the recorder drops the repetition. In the other order MLflow would lack them for ever.
        self._events.publish(*happened)
        return decision

    def _take_in_epoch(self, trial: Trial, report: Report, happened: list[Event]) -> Decision:
        epoch, metrics = report.epoch, report.metrics
        self._note_lost_epochs(trial, epoch)
        if report.findings:
            self._study.record_findings(trial, report.findings)
        wrong = next((name for name, number in metrics.items() if not math.isfinite(number)), None)
        value = math.nan if wrong else metrics[self._plan.spec.objective.metric]
        others = {name: metrics[name] for name in self._further}
        happened.append(EpochReported(trial.number, epoch, metrics, finite(value)))
        decision = self._study.report(trial, epoch, value, others)
        if report.checkpoint is not None:
            self._study.record_checkpoint(trial, epoch, report.checkpoint)
        self._has_values = True
        decision = self._overruled(decision, report, wrong)
        if decision.action not in _NOT_ENDED:
            self._keep_last(trial, decision, metrics)
        happened.append(TrialDecided(trial.number, epoch, decision))
        return decision

    def _overruled(self, decision: Decision, report: Report, wrong: str | None) -> Decision:
        """The search's decision, unless a metric is not finite, the doctor stops the trial, or the study is over."""
        if wrong:
            return Decision("diverge", "not_finite", report.epoch, wrong, report.metrics[wrong])
        if decision.action not in _NOT_ENDED:
            return decision
        if (fatal := self._fatal(report.findings)) is not None:
            text = f"{fatal.text()}; try {fatal.rule.remedy}"
            return Decision("diverge", "finding", report.epoch, finding=fatal.code, detail=text)
        if self.over is not None:
            return Decision("stop", "study_ended", report.epoch, detail=self.over)
        return decision

    def _keep_last(self, trial: Trial, decision: Decision, metrics: Mapping[str, float]) -> None:
        """Store the other metrics of a trial's last epoch, and end the study if the trial reached its target."""
        self._study.record_metrics(trial, {name: number for name, number in metrics.items() if math.isfinite(number)})
        budget = self._plan.spec.budget
        if decision.cause == "target_reached":
            self._over = f"budget.target: {budget.target:g} was reached by trial {trial.number}"

    def _note_lost_epochs(self, trial: Trial, epoch: int) -> None:
        """Publish once that a trial trains epochs again that it had reported."""
        if epoch > trial.epochs_done or trial.number in self._restarted:
            return
        self._restarted.add(trial.number)
        where = (
            f"its newest readable checkpoint is of epoch {epoch - 1}" if epoch > 1 else "no checkpoint of it is left"
        )
        reported = f"{trial.epochs_done} that it had reported"
        self._events.note(f"trial {trial.number} trains again from epoch {epoch}, of {reported}: {where}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Delays Ctrl-C, and checks that the study is still this driver's."""
        with self._interrupts.shield():
            self._control.fence()
            yield

    def _fail(self, trial: Trial, traceback: str, decision: Decision) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / trial_log_name(trial.number)
        with log.open("a", errors="backslashreplace") as opened:  # after what the trial has printed
            opened.write(f"{log_text(traceback)}\n")
        self._failures.append(decision.detail)
        self._end(trial, decision)
        if self.broken is not None:
            self._over = self.broken

    def _end(self, trial: Trial, decision: Decision) -> None:
        self._study.tell(trial, decision)
        self._close(trial, decision)

    def _close(self, trial: Trial, decision: Decision) -> None:
        """A trial ended or is paused: its worker is free for another."""
        tags = {}
        if decision.action != "pause":
            self._ended += 1
            tags = finding_tags(self._study.findings(trial))
        self._drop(trial)
        self._events.publish(TrialEnded(trial.number, decision.state.value, decision.text(), tags))
        if not self._live and self.finished:
            self._control.last_trial_ended()

    def _drop(self, trial: Trial) -> None:
        self._live.pop(trial.number, None)
        self._epochs.end(trial.number)

    def _fatal(self, findings: Sequence[Finding]) -> Finding | None:
        """The finding for which the doctor stops a trial, where the study allows it."""
        if self._plan.spec.early_stopping.doctor != "stop":
            return None
        return next((finding for finding in findings if finding.fatal), None)
