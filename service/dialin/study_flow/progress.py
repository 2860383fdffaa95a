"""What a person sees while a study runs: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence

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
from dialin.search.ranking import best_value
from dialin.search.records import Trial, TrialRecord
from dialin.specification.domains import Fixed
from dialin.texts import metric_text, printable, scalar_text

MOST_SHOWN = 60  # characters of a knob's value
PLAIN_SECONDS = 2.0  # between two plain lines, at least
PANEL_PER_SECOND = 4  # how often the panel is drawn, whether anything has happened or not


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

    `late`: the display attaches to a study that runs already; what happened before makes no lines.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic, *, late: bool = False) -> None:
        self._console = console
        self._clock = clock
        self._began = clock()
        self._first_trial: float | None = None
        self._said = self._began if late else -PLAIN_SECONDS
        self._plan: Plan | None = None
        self._study_id = ""
        self._running: dict[int, tuple[Trial, int, float | None]] = {}
        self._waiting: set[int] = set()
        self._ends: Counter[TrialState] = Counter()
        self._furthest: dict[int, int] = {}  # trial -> its last epoch
        self._ended: set[int] = set()
        self._pace = Pace()
        self._best: tuple[float, int, int] | None = None
        # The panel is drawn by a thread of rich's, so that its clock shows a study that hangs. That thread only reads,
        # and copies each collection in one call before it looks at it.
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
        """Take over the plan of a study, and the trials that earlier drivers have left; print what is planned."""
        self._plan, self._study_id = plan, study_id
        for record in trials:
            self._take_over(record, plan)
        spec = plan.spec
        rungs = f"compared after epochs {', '.join(map(str, plan.rungs))}" if plan.rungs else "no early stopping"
        self.note(
            f"study {study_id}: {spec.budget.trials} trials of up to {spec.budget.epochs} epochs on "
            f"{spec.objective.subject}, {plan.concurrency} at a time, {rungs}"
        )

    def _take_over(self, record: TrialRecord, plan: Plan) -> None:
        """Count a trial that an earlier driver of the study has left."""
        self._furthest[record.number] = record.epochs_done
        if record.state in TRIAL_ENDED:
            self._ends[record.state] += 1
            self._ended.add(record.number)
        elif record.values:
            self._waiting.add(record.number)
        value = best_value(record.values, plan.spec.objective.mode == "max")
        if value is not None and record.state is not TrialState.FAILED:
            epoch = next(epoch for epoch, reported in sorted(record.values.items()) if reported == value)
            self._note_best(record.number, epoch, value)

    def receive(self, event: Event) -> None:
        """Show an event of the study's log."""
        match event:
            case TrialStarted():
                self.trial_started(Trial(event.trial, event.params, 0, event.epochs))
            case EpochReported() if event.trial in self._running:
                value = math.nan if event.value is None else event.value
                self.epoch_done(self._running[event.trial][0], event.epoch, value)
            case TrialEnded() if event.state in list(TrialState):
                decision = Decision.of_state(TrialState(event.state), event.reason)
                self.trial_ended(Trial(event.trial, {}, 0), decision)

    def trial_started(self, trial: Trial) -> None:
        """A trial began, or continued after a pause."""
        self._first_trial = self._first_trial or self._clock()
        self._running[trial.number] = (trial, trial.epochs_done, None)
        self._furthest.setdefault(trial.number, trial.epochs_done)
        self._waiting.discard(trial.number)
        self._refresh()

    def epoch_done(self, trial: Trial, epoch: int, value: float) -> None:
        """A trial reported the metric's value after an epoch; NaN for a value that is not finite."""
        self._pace.count(self._clock())
        self._running[trial.number] = (trial, epoch, value)
        self._furthest[trial.number] = max(epoch, self._furthest.get(trial.number, 0))
        self._note_best(trial.number, epoch, value)
        self._refresh()

    def trial_ended(self, trial: Trial, decision: Decision) -> None:
        """A trial ended or was paused; a failure is printed with its cause."""
        self._running.pop(trial.number, None)
        if decision.state is TrialState.WAITING:
            self._waiting.add(trial.number)
            return
        self._waiting.discard(trial.number)
        self._ended.add(trial.number)
        self._ends[decision.state] += 1
        if decision.state is TrialState.FAILED:
            self.note(f"trial {trial.number} failed: {decision.text()}")
        self._refresh()

    def _note_best(self, number: int, epoch: int, value: float) -> None:
        if value != value or self._plan is None:  # NaN
            return
        sign = 1 if self._plan.spec.objective.mode == "max" else -1
        if self._best is None or sign * value > sign * self._best[0]:
            self._best = (value, number, epoch)

    def _refresh(self) -> None:
        """A plain line now and then where there is no terminal; the panel is drawn by its own thread."""
        if self._console.is_terminal:
            return
        last = self._plan is not None and len(self._ended) == self._plan.spec.budget.trials
        if self._clock() - self._said < PLAIN_SECONDS and not last:
            return
        self._said = self._clock()
        self.note(self._line())

    def _line(self) -> str:
        begun = len(self._furthest)
        total = max(self._plan.spec.budget.trials if self._plan else 0, begun)
        running = f"{len(self._running)} running" if self._first_trial is not None else "starting the first"
        parts = [f"{begun} of {total} trials begun", running, self._ends_text(), self._best_text(), self._time_text()]
        return ", ".join(filter(None, parts))

    def _ends_text(self) -> str:
        names = {
            TrialState.COMPLETE: "complete",
            TrialState.STOPPED: "stopped early",
            TrialState.DIVERGED: "diverged",
            TrialState.FAILED: "failed",
        }
        parts = [f"{self._ends[state]} {name}" for state, name in names.items() if self._ends[state]]
        paused = [f"{len(self._waiting)} paused (the best of them will continue)"] if self._waiting else []
        return ", ".join([*paused, *parts])

    def _best_text(self) -> str:
        if self._best is None or self._plan is None:
            return ""
        value, number, epoch = self._best
        return f"best {self._plan.spec.objective.metric} {metric_text(value)} (trial {number}, epoch {epoch})"

    def _time_text(self) -> str:
        elapsed = self._clock() - self._began
        left = self.seconds_left()
        return f"{elapsed:.0f} s" + (f", {duration_text(left)} left" if left else "")

    def seconds_left(self) -> float | None:
        """An estimate from the pace so far and the epochs that the rungs let one expect; never more than what is left
        of `budget.hours`. None while too few epochs were reported to tell."""
        if self._plan is None:
            return None
        now = self._clock()
        left = self._pace.seconds(self._epochs_left(), now, self._plan.concurrency)
        hours = self._plan.spec.budget.hours
        if left is None or hours is None:
            return left
        return max(0.0, min(left, hours * 3600 - (now - self._began)))

    def _epochs_left(self) -> int:
        return epochs_left(self._plan, dict(self._furthest), set(self._ended)) if self._plan is not None else 0

    def _panel(self) -> RenderableType:
        if self._plan is None:
            return Text("")
        spec = self._plan.spec
        trained = sum(list(self._furthest.values()))
        bar = ProgressBar(total=max(1, trained + self._epochs_left()), completed=trained, width=40)
        table = Table.grid(padding=(0, 2))
        for trial, epoch, value in list(self._running.values()):
            shown = "" if value is None else f"{spec.objective.metric} {metric_text(value)}"
            cells = (f"  trial {trial.number}", f"epoch {epoch}/{spec.budget.epochs}", shown, _knobs(trial, self._plan))
            table.add_row(*map(Text, cells))  # strings would be read as rich's markup
        head = Table.grid(padding=(0, 1))
        head.add_row(bar, Text(self._line()))
        return Group(head, table)


def _knobs(trial: Trial, plan: Plan) -> str:
    moving = [n for n, domain in plan.spec.space.items() if n in trial.params and not isinstance(domain, Fixed)]
    return "  ".join(f"{name} {scalar_text(trial.params[name], digits=3, most=MOST_SHOWN)}" for name in moving[:6])
