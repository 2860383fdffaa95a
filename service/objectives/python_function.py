"""A person's own training function: any knobs, any framework.

    # train.py
    def train(config, trial):
        weights = start(config["lr"])
        for epoch in range(trial.epoch + 1, trial.epochs + 1):
            accuracy = train_one_epoch(weights)
            trial.report(epoch, accuracy)
            if trial.should_stop:
                return

The function runs in a thread of the worker that trains the trial, and nowhere else: a report hands its numbers over and
waits until the next epoch is wanted.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

from service.errors import DataError
from service.objectives.base import Metrics
from service.planning import Resources
from service.spec.domains import Scalar
from service.spec.findings import Finding
from service.spec.range_tests import Curve, Sweep
from service.spec.study_spec import StudySpec

OURS = ("service", "search_spaces")  # what a person's folder must not hide
CLOSE_SECONDS = 30.0  # how long a function that was told to stop is waited for
STATE_FILE, OWN_FILES = "state.json", "own.tar"


class TrialStopped(BaseException):
    """Raised in `Trial.report` where a function goes on after it was told to stop."""


@dataclass(frozen=True)
class PythonFunction:
    """The function of that name in a file, as an Objective."""

    file: Path
    function: str
    metric: str
    epochs: int

    @classmethod
    def from_spec(cls, spec: StudySpec) -> PythonFunction:
        file, function = split_reference(str(spec.objective.python))
        return cls(Path(file).resolve(), function, spec.objective.metric, spec.budget.epochs)

    def prepare(self, progress: Callable[[str], None]) -> None:
        """Look whether the function is there, without running anything of the file. Raises DataError."""
        if not self.file.is_file():
            raise DataError(f"objective.python: there is no file {self.file}")
        for ours in (self.file.parent / part for name in OURS for part in (name, f"{name}.py")):
            if ours.exists():
                raise DataError(f"objective.python: {ours} would hide dialin's own; rename it")
        try:
            names = _top_level_names(ast.parse(self.file.read_bytes(), str(self.file)))
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None)
            raise DataError(f"objective.python: {self.file}, line {line or '?'}: {error}") from None
        if self.function not in names:
            raise DataError(f"objective.python: no {self.function!r} in {self.file}; there: {', '.join(names) or '-'}")

    def range_test(self, params: Mapping[str, Scalar], seed: int, resources: Resources, sweep: Sweep) -> Curve:
        raise DataError("a training function of one's own has no range test of the learning rate")

    def range_test_epochs(self, params: Mapping[str, Scalar], steps: int) -> float:
        return 0.0

    def start(self, params: Mapping[str, Scalar], seed: int, resources: Resources) -> PythonRun:
        return PythonRun(self, params, seed)


class Checkpoint:
    """What a function saves of a trial, and finds again when the trial goes on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: Path | None = None
        self.saved_after: int | None = None  # epochs reported when it was saved
        self._reported = 0

    @contextmanager
    def save(self) -> Iterator[Path]:
        """An empty folder to write the state into, before the report of the epoch that it belongs to. It takes the
        place of the one before once the `with` ends; dialin keeps it where a trial may have to go on from it."""
        partial = Path(tempfile.mkdtemp(dir=self._folder, prefix="partial-"))
        yield partial
        shutil.rmtree(self.latest, ignore_errors=True)
        partial.rename(self.latest)
        self.saved_after = self._reported + 1

    def load(self) -> Path | None:
        """The folder that was saved, of a trial that goes on; None for one that starts."""
        return self._loaded

    @property
    def latest(self) -> Path:
        return self._folder / "latest"

    def taken_up(self, folder: Path | None, epoch: int) -> None:
        self._loaded, self._reported = folder, epoch

    def reported(self, epoch: int) -> None:
        self._reported = epoch


class Trial:
    """What a training function is given beside its configuration.

    `epoch`: so many epochs are in the checkpoint, go on with the next one; `epochs`: a full trial's; `seed`: for all
    that is random.
    """

    def __init__(self, seed: int, epoch: int, epochs: int, checkpoint: Checkpoint, hand_over: HandOver) -> None:
        self.seed, self.epoch, self.epochs, self.checkpoint = seed, epoch, epochs, checkpoint
        self._hand_over = hand_over

    @property
    def should_stop(self) -> bool:
        """Whether the trial was stopped, or paused: return now. A further report raises `TrialStopped`."""
        return self._hand_over.stopping

    def report(self, epoch: int, value: float, **metrics: float) -> None:
        """The metric of the study after `epoch` (from 1, one after the other), and others to be shown. Raises
        ValueError for an epoch out of turn, TypeError for what is no number."""
        self._hand_over.report(epoch, value, metrics)
        self.checkpoint.reported(epoch)


class HandOver:
    """Between the function's thread and the trial's: one of the two runs at a time."""

    def __init__(self, metric: str, epoch: int) -> None:
        self._metric, self._last = metric, epoch
        self._said: SimpleQueue[Metrics | BaseException | None] = SimpleQueue()
        self._go_on: SimpleQueue[bool] = SimpleQueue()
        self.stopping = False

    def report(self, epoch: int, value: float, metrics: Mapping[str, float]) -> None:
        if self.stopping:
            raise TrialStopped
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch != self._last + 1:
            raise ValueError(f"epoch {epoch!r} was reported; the next one is {self._last + 1}")
        self._last = epoch
        numbers = {self._metric: _number(self._metric, value)}
        self._said.put(numbers | {name: _number(name, other) for name, other in metrics.items()})
        self.stopping = not self._go_on.get()

    def ended(self, how: BaseException | None) -> None:
        """The function has returned, or raised."""
        self._said.put(how)

    def next(self) -> Metrics | BaseException | None:
        """Wait for what the function says next: metrics, what it raised, or None when it has returned."""
        return self._said.get()

    def go_on(self, wanted: bool) -> None:
        self._go_on.put(wanted)


class PythonRun:
    """One trial; implements `objectives.base.Run`."""

    def __init__(self, objective: PythonFunction, params: Mapping[str, Scalar], seed: int) -> None:
        self._objective, self._params, self._seed = objective, dict(params), seed
        self._folder = Path(tempfile.mkdtemp(prefix="dialin-trial-"))
        self._checkpoint = Checkpoint(self._folder)
        self._thread: threading.Thread | None = None
        self._hand_over = HandOver(objective.metric, 0)
        self._done = 0  # epochs that were taken in
        self._at = 0  # the epoch that the function is at: it may have had to go back

    def epoch(self) -> Metrics:
        while True:
            if self._thread is None:
                self._begin()
            else:
                self._hand_over.go_on(True)
            said = self._hand_over.next()
            if isinstance(said, BaseException):
                raise said
            if said is None:
                name, epochs = self._objective.function, self._objective.epochs
                raise RuntimeError(f"{name} returned after {self._at} of {epochs} epochs (trial.epochs)")
            self._at += 1
            if self._at > self._done:  # else it was taken in before the function had to go back
                self._done = self._at
                return said

    def save(self, folder: Path) -> None:
        """What the function saved last; where it saved nothing, that: it will start again."""
        epoch = self._checkpoint.saved_after
        if epoch is not None:
            with tarfile.open(folder / OWN_FILES, "w") as archive:
                archive.add(self._checkpoint.latest, ".")
        data = {"epoch": epoch or 0, "done": self._done, "params": self._params}
        (folder / STATE_FILE).write_text(json.dumps(data))

    def load(self, folder: Path) -> None:
        data = json.loads((folder / STATE_FILE).read_text())
        if data["params"] != self._params:
            raise DataError(f"checkpoint {folder} belongs to another configuration: {data['params']}")
        self._done, self._at = data["done"], data["epoch"]
        self._hand_over = HandOver(self._objective.metric, self._at)
        if self._at:
            own = self._folder / "loaded"
            with tarfile.open(folder / OWN_FILES) as archive:
                archive.extractall(own, filter="data")
            self._checkpoint.taken_up(own, self._at)

    def test(self) -> Metrics:
        return {}

    def findings(self) -> list[Finding]:
        return []

    def close(self) -> None:
        if self._thread is not None:
            self._hand_over.stopping = True
            self._hand_over.go_on(False)
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                name = self._objective.function
                print(
                    f"{name} goes on {CLOSE_SECONDS:g} s after it was told to stop; it is left alone", file=sys.stderr
                )
                return
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self) -> None:
        trial = Trial(self._seed, self._at, self._objective.epochs, self._checkpoint, self._hand_over)
        self._thread = threading.Thread(target=self._call, args=(trial,), name="training", daemon=True)
        self._thread.start()

    def _call(self, trial: Trial) -> None:
        try:
            function = getattr(_load(self._objective.file), self._objective.function)
            function(dict(self._params), trial)
        except TrialStopped:
            self._hand_over.ended(None)
        except BaseException as error:  # noqa: BLE001  a person's code; raised again in the trial's thread
            self._hand_over.ended(error)
        else:
            self._hand_over.ended(None)


def split_reference(reference: str) -> tuple[str, str]:
    """FILE:FUNCTION in its parts; the function is empty where there is none."""
    file, _, function = reference.rpartition(":")
    return (file, function) if file else (reference, "")


def _load(file: Path) -> ModuleType:
    """The module in a file, loaded once a process while the file stays as it is. Its folder is looked in for what it
    imports, after everything else."""
    name = f"dialin_own_{abs(hash((file, file.stat().st_mtime_ns))):x}"
    if name in sys.modules:
        return sys.modules[name]
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    found = importlib.util.spec_from_file_location(name, file)
    if found is None or found.loader is None:
        raise DataError(f"objective.python: {file} is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _top_level_names(tree: ast.Module) -> list[str]:
    """What a module defines or imports under a name, without the private ones."""
    names: list[str] = []
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.append(name)
            case ast.Assign(targets=targets):
                names += [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.ImportFrom(names=imported):
                names += [alias.asname or alias.name for alias in imported]
    return names


def _number(name: str, value: Any) -> float:
    """As a float: a number, numpy's or torch's included."""
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        shown = repr(value)
        raise TypeError(f"{name} is {shown[:60]}, and not a number") from None
