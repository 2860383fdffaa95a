"""The driver of one study: it alone writes to the study and to its mirror, and says when enough is enough."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dialin.events.journal import Listener
from dialin.planning.plan import Plan
from dialin.search.decision import Decision
from dialin.search.epoch_clock import EpochClock
from dialin.search.failures import are_alike, cause_of, failures_text
from dialin.search.records import Report, Trial, trial_log_name
from dialin.search.study import Study
from dialin.specification.findings import Finding
from dialin.study_flow.signals import Interrupts
from dialin.texts import log_text, one_line
from dialin.tracking.mirror import Mirror

FIRST_FAILURES = 3  # trials that fail alike before any has reported end the study; at least as many as run at a time
MOST_LOSSES = 3  # workers that may die under one trial, before it is the trial's doing
STARVED_SECONDS = 20.0  # trials that wait for a worker for so long are said to; one starts in less
LAST_WORD_SECONDS = 10.0  # when a study is over, trials may report for so long what they are at


class StudyDriver:
    """Joins the study, the mirror and whoever watches. Implements `search.driver.Driver`; not thread safe."""

    def __init__(
        self,
        plan: Plan,
        study: Study,
        mirror: Mirror,
        listener: Listener,
        logs: Path,
        interrupts: Interrupts,
        clock: Callable[[], float] = time.monotonic,
        fence: Callable[[], None] = lambda: None,
        allowance: Callable[[], int | None] = lambda: None,
        progress: Callable[[], None] = lambda: None,
        starved: Callable[[bool], None] = lambda _is: None,
    ) -> None:
        self._plan = plan
        self._study = study
        self._mirror = mirror
        self._listener = listener
        self._logs = logs
        self._interrupts = interrupts
        self._clock = clock
        self._fence = fence  # raises FencedError once another driver has the study; asked before anything is written
        self._allowance = allowance  # how many may run at a time now, as other studies come and go
        self._tell_progress = progress  # the loop that drives the study has come round once more
        self._tell_starved = starved  # whether all trials under way wait for a worker
        self._idle_since: float | None = None
        self._starved = False
        self._began = clock()
        self._epochs = EpochClock(plan.spec.budget.epoch_minutes, clock)
        self._over_at: float | None = None
        self._live: dict[int, Trial] = {}
        self._failures: list[str] = []
        self._ended = 0  # trials
        self._has_values = study.has_values
        self._mirrored: set[int] = set()
        self._losses: Counter[int] = Counter()
        self._restarted: set[int] = set()  # trials that train epochs again, as far as was said
        self._over: str | None = None

    @property
    def over(self) -> str | None:
        """Why no more is trained: the hours are up, the target is met, too many trials failed. None: it goes on."""
        hours = self._plan.spec.budget.hours
        if self._over is None and hours is not None and self._clock() - self._began >= hours * 3600:
            self._over = f"budget.hours: {hours:g} are up"
        return self._over

    @property
    def is_cut_off(self) -> bool:
        """Whether the study is over, and trials have had their time to report what they are at."""
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
        """What trials failed of, when more than `budget.failures` did, or all of the first ones alike before any had
        reported anything; None otherwise."""
        failed, allowed = len(self._failures), self._plan.spec.budget.failures
        said = failures_text(self._failures, self._ended)
        if failed > allowed:
            return f"{said} (budget.failures: {allowed})"
        if failed >= max(FIRST_FAILURES, self._plan.concurrency) and not self._has_values and are_alike(self._failures):
            return f"{said} (none had reported an epoch, so no more were tried)"
        return None

    def ask(self) -> Trial | None:
        if self.over is not None or self._is_at_its_share():
            return None
        with self._writing():
            trial = self._study.ask()
            if trial is not None:
                self._live[trial.number] = trial
                if trial.number not in self._mirrored:  # one that waited has its run
                    self._mirrored.add(trial.number)
                    self._mirror.trial_started(trial.number, trial.params)
                self._listener.trial_started(trial)
        return trial

    def _is_at_its_share(self) -> bool:
        allowed = self._allowance()
        return allowed is not None and len(self._live) >= max(1, allowed)

    def progress(self) -> None:
        self._tell_progress()
        waits = bool(self._live) and self._epochs.is_idle
        if not waits:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = self._clock()
        starved = self._idle_since is not None and self._clock() - self._idle_since >= STARVED_SECONDS
        if starved != self._starved:
            self._starved = starved
            self._tell_starved(starved)

    def working(self, trial: Trial) -> None:
        if trial.number in self._live:
            self._epochs.begin(trial.number, trial.epochs_done)

    def overdue(self) -> list[tuple[Trial, str]]:
        late = ((trial, self._epochs.overdue(number)) for number, trial in self._live.items())
        return [(trial, text) for trial, text in late if text is not None]

    def report(self, trial: Trial, reports: Sequence[Report]) -> Decision:
        with self._writing():
            self._epochs.report(trial.number, sum(report.ended is None for report in reports))
            with self._study.batch():
                for report in reports:
                    decision = self._take_in(trial, report)
                    if not decision.continues:
                        break
                if not decision.continues:
                    self._study.tell(trial, decision)
            # Of its end the mirror hears when that is stored: it never takes one back.
            if not decision.continues:
                self._closed(trial, decision)
            return decision

    def fail(self, trial: Trial, traceback: str) -> None:
        with self._writing():
            self._fail(trial, traceback, Decision("fail", "exception", detail=cause_of(traceback)))

    def lost(self, trial: Trial, reason: str) -> None:
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
            self._listener.note(f"trial {trial.number} lost its worker and goes on from its checkpoint: {why}")

    def interrupt(self) -> None:
        """Put back every trial under way: a resumed study goes on with them."""
        self._fence()
        for trial in self._live.values():
            self._study.interrupt(trial)
        for number in sorted({*self._live, *(trial.number for trial, _ in self._study.paused())}):
            self._mirror.trial_ended(number, "interrupted", "the study was interrupted")
        self._live.clear()

    def finish(self) -> None:
        """End the trials that still wait at a rung, or were under way when the study was cut off: nothing more is
        trained."""
        with self._writing():
            for trial in list(self._live.values()):
                self._end(trial, Decision("stop", "study_ended", detail=self._over or ""))
            for trial, decision in self._study.paused():
                self._end(trial, replace(decision, detail=self._over or ""))

    def _take_in(self, trial: Trial, report: Report) -> Decision:
        if report.ended is not None:
            if report.metrics:  # none where it went on and ended at once: they are stored
                self._study.record_metrics(trial, report.metrics)
            return Decision("complete", "no_more_epochs", report.epoch, detail=report.ended)
        epoch, metrics, findings = report.epoch, report.metrics, report.findings
        self._note_lost_epochs(trial, epoch)
        if findings:
            self._study.record_findings(trial, findings)
        # The mirror's spool first: a crash in between repeats an epoch there, which the recorder drops; the other way
        # round it would leave a hole that nothing could fill.
        self._mirror.epoch(trial.number, epoch, metrics)
        wrong = next((name for name, number in metrics.items() if not math.isfinite(number)), None)
        value = math.nan if wrong else metrics[self._plan.spec.objective.metric]
        decision = self._study.report(trial, epoch, value)
        if wrong:
            decision = Decision("diverge", "not_finite", epoch, wrong, metrics[wrong])
        elif decision.action in ("continue", "pause") and (fatal := self._fatal(findings)) is not None:
            text = f"{fatal.text()}; try {fatal.rule.remedy}"
            decision = Decision("diverge", "finding", epoch, finding=fatal.code, detail=text)
        if report.checkpoint is not None:
            self._study.record_checkpoint(trial, epoch, report.checkpoint)
        self._has_values = True
        self._listener.epoch_done(trial, epoch, value)
        if self.over is not None and decision.action in ("continue", "pause"):
            decision = Decision("stop", "study_ended", epoch, detail=self.over)
        if decision.action not in ("continue", "pause"):
            self._study.record_metrics(
                trial, {name: number for name, number in metrics.items() if math.isfinite(number)}
            )
            if self._plan.spec.budget.reached(value, self._plan.spec.objective.mode):
                self._over = f"budget.target: {self._plan.spec.budget.target:g} was reached by trial {trial.number}"
        self._listener.decided(trial, epoch, decision)
        return decision

    def _note_lost_epochs(self, trial: Trial, epoch: int) -> None:
        """Say so when a trial that was to go on trains epochs again."""
        if epoch > trial.epochs_done or trial.number in self._restarted:
            return
        self._restarted.add(trial.number)
        where = (
            f"its newest readable checkpoint is of epoch {epoch - 1}" if epoch > 1 else "no checkpoint of it is left"
        )
        reported = f"{trial.epochs_done} that it had reported"
        self._listener.note(f"trial {trial.number} trains again from epoch {epoch}, of {reported}: {where}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Whole in spite of Ctrl-C, and only while the study is ours."""
        with self._interrupts.shield():
            self._fence()
            yield

    def _fail(self, trial: Trial, traceback: str, decision: Decision) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / trial_log_name(trial.number)
        with log.open("a", errors="backslashreplace") as opened:  # behind what the trial has printed
            opened.write(f"{log_text(traceback)}\n")
        self._failures.append(decision.detail)
        self._end(trial, decision)
        if self.broken is not None:
            self._over = self.broken

    def _end(self, trial: Trial, decision: Decision) -> None:
        self._study.tell(trial, decision)
        self._closed(trial, decision)

    def _closed(self, trial: Trial, decision: Decision) -> None:
        """Its worker is free for another. The run in MLflow of one that waits stays open."""
        if decision.action != "pause":
            self._ended += 1
            tags = {
                f"dialin.finding.{finding.code}": f"{finding.text()}; try {finding.rule.remedy}"
                for finding in self._study.findings(trial)
            }
            self._mirror.trial_ended(trial.number, decision.state.value, decision.text(), tags)
        self._drop(trial)
        self._listener.trial_ended(trial, decision)
        if not self._live and self.finished:
            self._mirror.hurry()

    def _drop(self, trial: Trial) -> None:
        self._live.pop(trial.number, None)
        self._epochs.end(trial.number)

    def _fatal(self, findings: Sequence[Finding]) -> Finding | None:
        """What the doctor stops a trial for, where the study lets it."""
        if self._plan.spec.early_stopping.doctor != "stop":
            return None
        return next((finding for finding in findings if finding.fatal), None)
