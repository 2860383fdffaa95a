"""The progress display of a running study: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dialin.events.types import EpochReported, Event, TrialEnded, TrialStarted
from dialin.lifecycle import TRIAL_ENDED, TrialState
from dialin.planning.plan import Plan
from dialin.planning.time_left import Pace, duration_text, epochs_left
from dialin.search.decision import Decision
from dialin.search.goals import Goals
from dialin.search.ranking import best_value
from dialin.search.records import Trial, TrialRecord
from dialin.specification.domains import Fixed
from dialin.study_flow.front_progress import FrontProgress
from dialin.texts import metric_text, printable, scalar_text

MOST_VALUE_CHARACTERS = 60  # a knob's value is cut at this length
PLAIN_SECONDS = 2.0  # least time between two plain lines
PANEL_PER_SECOND = 4  # the panel is drawn this often even if nothing has happened: its clock shows that it is alive
_NONE: Mapping[str, float] = {}


class StudyClock:
    """A clock for a display that attaches to a running study: it stands at the study's start until `run` is called.

    The display hears of all earlier trials at once; standing still keeps the elapsed time counted from the start.
    """

    def __init__(self, started: float) -> None:
        self._started: float | None = started

    def __call__(self) -> float:
        return time.time() if self._started is None else self._started

    def run(self) -> None:
        """Follow the wall clock from now on."""
        self._started = None


class Progress:
    """Shows the progress of a study: a live panel in a terminal, plain lines elsewhere. A context manager.

    `late`: whether the display attaches to a running study; then no lines are printed for earlier events.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic, *, late: bool = False) -> None:
        self._console = console
        self._clock = clock
        self._started = clock()
        self._has_started_trials = False
        self._last_line = self._started if late else -PLAIN_SECONDS  # time of the last plain line
        self._plan: Plan | None = None
        self._running: dict[int, tuple[Trial, int, str]] = {}  # number -> trial, last epoch, its values in words
        self._waiting: set[int] = set()
        self._counts: Counter[TrialState] = Counter()  # trials that have ended, by state
        self._last_epochs: dict[int, int] = {}  # number of each trial that has started -> its last epoch
        self._ended: set[int] = set()
        self._pace = Pace()
        self._best: tuple[float, int, int] | None = None  # value, trial, epoch
        self._front: FrontProgress | None = None  # in place of `_best`, with several metrics or constraints
        # A thread of rich draws the panel. It only reads, and copies each collection in one call before it iterates,
        # because this thread may change the collection meanwhile.
        self._live = Live(
            console=console, refresh_per_second=PANEL_PER_SECOND, transient=True, get_renderable=self._panel
        )

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def note(self, text: str) -> None:
        """Print a line of text."""
        self._console.print(printable(text), highlight=False, markup=False, emoji=False)

    def planned(self, study_id: str, plan: Plan, trials: Sequence[TrialRecord] = ()) -> None:
        """Set the plan of the study, count the trials of earlier drivers, and print what is planned."""
        self._plan = plan
        goals = Goals.of(plan.spec)
        self._front = None if goals.is_single else FrontProgress(goals)
        for record in trials:
            self._count_earlier_trial(record, plan)
        spec = plan.spec
        rungs = f"compared after epochs {', '.join(map(str, plan.rungs))}" if plan.rungs else "no early stopping"
        self.note(
            f"study {study_id}: {spec.budget.trials} trials of up to {spec.budget.epochs} epochs on "
            f"{spec.objective.subject}, {plan.concurrency} at a time, {rungs}"
        )

    def _count_earlier_trial(self, record: TrialRecord, plan: Plan) -> None:
        """Count a stored trial that was started by an earlier driver of the study."""
        self._last_epochs[record.number] = record.epochs_done
        if record.state in TRIAL_ENDED:
            self._counts[record.state] += 1
            self._ended.add(record.number)
        elif record.values:
            self._waiting.add(record.number)
        if record.state is TrialState.FAILED:
            return
        if self._front is not None:
            self._front.record(record)
            return
        value = best_value(record.values, plan.spec.objective.mode == "max")
        if value is not None:
            epoch = next(epoch for epoch, reported in sorted(record.values.items()) if reported == value)
            self._update_best(record.number, epoch, value)

    def receive(self, event: Event) -> None:
        """Update the display by an event of the study's log."""
        match event:
            case TrialStarted():
                self.trial_started(Trial(event.trial, event.params, 0, event.epochs))
            case EpochReported() if event.trial in self._running:
                value = math.nan if event.value is None else event.value
                self.epoch_done(self._running[event.trial][0], event.epoch, value, event.metrics)
            case TrialEnded() if event.state in list(TrialState):
                decision = Decision.of_state(TrialState(event.state), event.reason)
                self.trial_ended(Trial(event.trial, {}, 0), decision)

    def trial_started(self, trial: Trial) -> None:
        """Show a trial that has started, or has continued after a pause."""
        self._has_started_trials = True
        self._running[trial.number] = (trial, trial.epochs_done, "")
        self._last_epochs.setdefault(trial.number, trial.epochs_done)
        self._waiting.discard(trial.number)
        self._refresh()

    def epoch_done(self, trial: Trial, epoch: int, value: float, others: Mapping[str, float] = _NONE) -> None:
        """Show the metric's value that a trial has reported after an epoch; NaN for one that is not finite. `others`:
        what else it has reported, by name; needed with several metrics or constraints."""
        self._pace.count(self._clock())
        self._running[trial.number] = (trial, epoch, self._values_text(value, others))
        # A trial that lost its worker trains epochs again, and reports lower epochs than before.
        self._last_epochs[trial.number] = max(epoch, self._last_epochs.get(trial.number, 0))
        if self._front is not None:
            self._front.report(trial.number, epoch, value, others)
        else:
            self._update_best(trial.number, epoch, value)
        self._refresh()

    def trial_ended(self, trial: Trial, decision: Decision) -> None:
        """Show that a trial has ended or was paused; a failure is printed with its cause."""
        self._running.pop(trial.number, None)
        if decision.state is TrialState.WAITING:
            self._waiting.add(trial.number)
            return
        self._waiting.discard(trial.number)
        self._ended.add(trial.number)
        self._counts[decision.state] += 1
        if self._front is not None and decision.state is TrialState.COMPLETE:
            self._front.complete(trial.number)
        if decision.state is TrialState.FAILED:
            if self._front is not None:
                self._front.remove(trial.number)
            self.note(f"trial {trial.number} failed: {decision.text()}")
        self._refresh()

    def _update_best(self, number: int, epoch: int, value: float) -> None:
        if math.isnan(value) or self._plan is None:
            return
        sign = 1 if self._plan.spec.objective.mode == "max" else -1
        if self._best is None or sign * value > sign * self._best[0]:
            self._best = (value, number, epoch)

    def _refresh(self) -> None:
        """Print a line at most every PLAIN_SECONDS, and after the last trial. A terminal has the panel instead."""
        if self._console.is_terminal:
            return
        last = self._plan is not None and len(self._ended) == self._plan.spec.budget.trials
        if self._clock() - self._last_line < PLAIN_SECONDS and not last:
            return
        self._last_line = self._clock()
        self.note(self._line())

    def _line(self) -> str:
        started = len(self._last_epochs)
        total = max(self._plan.spec.budget.trials if self._plan else 0, started)
        running = f"{len(self._running)} running" if self._has_started_trials else "the first one is starting"
        parts = [f"{started} of {total} trials started", running]
        parts += [self._counts_text(), self._best_text(), self._time_text()]
        return ", ".join(filter(None, parts))

    def _counts_text(self) -> str:
        names = {
            TrialState.COMPLETE: "complete",
            TrialState.STOPPED: "stopped early",
            TrialState.DIVERGED: "diverged",
            TrialState.FAILED: "failed",
        }
        parts = [f"{self._counts[state]} {name}" for state, name in names.items() if self._counts[state]]
        paused = [f"{len(self._waiting)} paused (the best of them will continue)"] if self._waiting else []
        return ", ".join([*paused, *parts])

    def _values_text(self, value: float, others: Mapping[str, float]) -> str:
        if self._front is not None:
            return self._front.values_text(value, others)
        return f"{self._plan.spec.objective.metric} {metric_text(value)}" if self._plan is not None else ""

    def _best_text(self) -> str:
        if self._front is not None:
            return self._front.text()
        if self._best is None or self._plan is None:
            return ""
        value, number, epoch = self._best
        return f"best {self._plan.spec.objective.metric} {metric_text(value)} (trial {number}, epoch {epoch})"

    def _time_text(self) -> str:
        elapsed = self._clock() - self._started
        left = self.seconds_left()
        return f"{elapsed:.0f} s" + (f", {duration_text(left)} left" if left else "")

    def seconds_left(self) -> float | None:
        """Return an estimate of the time until the study ends; None while too few epochs have been reported.

        The estimate is the expected number of epochs over the pace so far, and at most what is left of `budget.hours`.
        """
        if self._plan is None:
            return None
        now = self._clock()
        left = self._pace.seconds(self._epochs_left(), now, self._plan.concurrency)
        hours = self._plan.spec.budget.hours
        if left is None or hours is None:
            return left
        return max(0.0, min(left, hours * 3600 - (now - self._started)))

    def _epochs_left(self) -> int:
        return epochs_left(self._plan, dict(self._last_epochs), set(self._ended)) if self._plan is not None else 0

    def _panel(self) -> RenderableType:
        if self._plan is None:
            return Text("")
        spec = self._plan.spec
        trained = sum(list(self._last_epochs.values()))
        bar = ProgressBar(total=max(1, trained + self._epochs_left()), completed=trained, width=40)
        table = Table.grid(padding=(0, 2))
        for trial, epoch, shown in list(self._running.values()):
            cells = (f"  trial {trial.number}", f"epoch {epoch}/{spec.budget.epochs}", shown, _knobs(trial, self._plan))
            table.add_row(*map(Text, cells))  # strings would be read as rich's markup
        head = Table.grid(padding=(0, 1))
        head.add_row(bar, Text(self._line()))
        return Group(head, table)


def _knobs(trial: Trial, plan: Plan) -> str:
    """The first six searched knobs of a trial; a terminal has no room for more."""
    searched = [n for n, domain in plan.spec.space.items() if n in trial.params and not isinstance(domain, Fixed)]
    values = {name: scalar_text(trial.params[name], digits=3, most=MOST_VALUE_CHARACTERS) for name in searched[:6]}
    return "  ".join(f"{name} {value}" for name, value in values.items())
