"""What a person sees while a study runs: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.planning import Plan
from service.results.summary import figure
from service.search.records import Decision, Outcome, State, Trial, TrialRecord

PLAIN_SECONDS = 2.0  # between two plain lines, at least
PANEL_SECONDS = 0.05  # and between two looks of the panel; who watches from elsewhere hears much at once


class StudyClock:
    """Wall-clock seconds; those of a study's start until `run`. Who joins late hears of its trials all at once, and
    they have taken the time since then."""

    def __init__(self, started: float) -> None:
        self._started: float | None = started

    def __call__(self) -> float:
        return time.time() if self._started is None else self._started

    def run(self) -> None:
        self._started = None


class Progress:
    """Listens to a driver. Use as a context manager; `console` decides between the live panel and plain lines.
    `late`: the study has begun before; what is told of that time, by a clock that stands still, makes no lines."""

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
        self._ends: Counter[State] = Counter()
        self._epochs = 0
        self._best: tuple[float, int, int] | None = None
        self._live = Live(console=console, auto_refresh=False, transient=True, get_renderable=self._panel)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def planned(self, study_id: str, plan: Plan, trials: Sequence[TrialRecord] = ()) -> None:
        self._plan, self._study_id = plan, study_id
        for record in trials:
            if record.state in (State.COMPLETE, State.STOPPED, State.DIVERGED, State.FAILED):
                self._ends[record.state] += 1
        spec = plan.spec
        rungs = f"compared after epochs {', '.join(map(str, plan.rungs))}" if plan.rungs else "no early stopping"
        self.note(
            f"study {study_id}: {spec.budget.trials} trials of up to {spec.budget.epochs} epochs on "
            f"{spec.objective.subject}, {plan.concurrency} at a time, {rungs}"
        )
        if self._console.is_terminal:
            self._live.refresh()

    def trial_started(self, trial: Trial) -> None:
        self._first_trial = self._first_trial or self._clock()
        self._running[trial.number] = (trial, trial.epochs_done, None)
        self._waiting.discard(trial.number)
        self._refresh()

    def epoch_done(self, trial: Trial, epoch: int, value: float) -> None:
        self._epochs += 1
        self._running[trial.number] = (trial, epoch, value)
        self._note_best(trial, epoch, value)
        self._refresh()

    def decided(self, trial: Trial, epoch: int, decision: Decision) -> None:
        """Nothing to show: the trial's end says why, and most decisions are to go on."""

    def trial_ended(self, trial: Trial, outcome: Outcome) -> None:
        self._running.pop(trial.number, None)
        if outcome.state is State.WAITING:
            self._waiting.add(trial.number)
            return
        self._waiting.discard(trial.number)
        self._ends[outcome.state] += 1
        if outcome.state is State.FAILED:
            self.note(f"trial {trial.number} failed: {outcome.reason}")
        self._refresh()

    def _note_best(self, trial: Trial, epoch: int, value: float) -> None:
        if value != value or self._plan is None:  # NaN
            return
        sign = 1 if self._plan.spec.objective.mode == "max" else -1
        if self._best is None or sign * value > sign * self._best[0]:
            self._best = (value, trial.number, epoch)

    def _refresh(self) -> None:
        terminal = self._console.is_terminal
        ended = sum(self._ends.values())
        last = self._plan is not None and ended == self._plan.spec.budget.trials
        if self._clock() - self._said < (PANEL_SECONDS if terminal else PLAIN_SECONDS) and not last:
            return
        self._said = self._clock()
        if terminal:
            self._live.refresh()
        else:
            self.note(self._line())

    def _line(self) -> str:
        total = self._plan.spec.budget.trials if self._plan else 0
        running = f"{len(self._running)} running" if self._first_trial is not None else "starting the first"
        parts = [f"{sum(self._ends.values())}/{total} trials", running, self._ends_text()]
        return ", ".join(part for part in (*parts, self._best_text(), self._time_text()) if part)

    def _ends_text(self) -> str:
        names = {State.STOPPED: "stopped early", State.DIVERGED: "diverged", State.FAILED: "failed"}
        parts = [f"{self._ends[state]} {name}" for state, name in names.items() if self._ends[state]]
        return ", ".join([f"{len(self._waiting)} waiting", *parts] if self._waiting else parts)

    def _best_text(self) -> str:
        if self._best is None or self._plan is None:
            return ""
        value, number, epoch = self._best
        return f"best {self._plan.spec.objective.metric} {figure(value)} (trial {number}, epoch {epoch})"

    def _time_text(self) -> str:
        elapsed = self._clock() - self._began
        left = self.seconds_left()
        return f"{elapsed:.0f} s" + (f", about {left:.0f} s left" if left is not None else "")

    def seconds_left(self) -> float | None:
        """An estimate from the time of an epoch so far, and how many the plan says are likely; more where trials that
        have ended say so. None before there are any."""
        if not self._epochs or self._plan is None or self._first_trial is None:
            return None
        budget, ended = self._plan.spec.budget, sum(self._ends.values())
        expected = max(self._epochs, self._plan.likely_epochs)
        if ended and not self._waiting:
            under_way = sum(epoch for _, epoch, _ in self._running.values())
            expected = max(self._epochs, round((self._epochs - under_way) / ended * budget.trials))
        left = (self._clock() - self._first_trial) / self._epochs * (expected - self._epochs)
        if budget.hours is None:
            return left
        return max(0.0, min(left, budget.hours * 3600 - (self._clock() - self._began)))

    def _panel(self) -> RenderableType:
        if self._plan is None:
            return Text("")
        spec = self._plan.spec
        ended = sum(self._ends.values())
        bar = ProgressBar(total=spec.budget.trials, completed=ended, width=40)
        table = Table.grid(padding=(0, 2))
        for trial, epoch, value in self._running.values():
            shown = "" if value is None else f"{spec.objective.metric} {figure(value)}"
            table.add_row(
                f"  trial {trial.number}", f"epoch {epoch}/{spec.budget.epochs}", shown, _knobs(trial, self._plan)
            )
        head = Table.grid(padding=(0, 1))
        head.add_row(bar, Text(self._line()))
        return Group(head, table)


def _knobs(trial: Trial, plan: Plan) -> str:
    moving = [name for name in plan.spec.space if name in trial.params]
    return "  ".join(f"{name} {_short(trial.params[name])}" for name in moving[:6])


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
