"""A person's own training function as something that can be tuned. Its file runs where trials run, and nowhere else."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from dialin.errors import DataError, FunctionError, UsageError
from dialin.objectives.base import Metrics, NoMoreEpochsError
from dialin.objectives.function_trial import Checkpoint, Exchange, FunctionTrial, TrialStoppedError, number
from dialin.planning.plan import Resources
from dialin.specification.domains import Scalar
from dialin.specification.findings import Finding
from dialin.specification.functions import check_function
from dialin.specification.range_tests import Curve, Sweep
from dialin.specification.study_spec import PythonSpec
from dialin.supervisor.scratch_dir import remove_scratch, scratch_folder
from dialin.texts import log_text

CLOSE_SECONDS = 5.0  # how long the end of a trial waits for its function to return
_STATE, _NOTE = "state", "run.json"  # in a checkpoint: what the function saved, and what we know of it


@dataclass(frozen=True)
class PythonFunction:
    """A function of a file, called as function(config, trial) once for each time that a trial is taken up. `epochs`:
    of a full trial."""

    file: Path
    function: str
    metric: str
    epochs: int

    @classmethod
    def from_spec(cls, asked: PythonSpec, epochs: int) -> PythonFunction:
        return cls(asked.file, asked.function, asked.metric, epochs)

    def prepare(self, progress: Callable[[str], None]) -> None:
        """Raises FunctionError when the file has no such function; it is read for that, and not run."""
        try:
            check_function(self.file, self.function)
        except ValueError as error:
            raise FunctionError(str(error)) from None

    def range_test(self, params: Mapping[str, Scalar], seed: int, resources: Resources, sweep: Sweep) -> Curve:
        self._has_no_range_test()

    def range_test_epochs(self, params: Mapping[str, Scalar], steps: int) -> float:
        self._has_no_range_test()

    def start(self, params: Mapping[str, Scalar], seed: int, resources: Resources) -> FunctionRun:
        return FunctionRun(self, params, seed)

    def _has_no_range_test(self) -> NoReturn:
        raise UsageError(f"{self.file.name}:{self.function} is a function of one's own, and has no range test")


class FunctionRun:
    """One trial: the function in a thread of its own, which starts with the first epoch.

    Where the function saved its state at an earlier epoch than the one to go on from, or not at all, the epochs in
    between are trained again here and reported no second time.
    """

    def __init__(self, objective: PythonFunction, params: Mapping[str, Scalar], seed: int) -> None:
        self._objective = objective
        self._params = dict(params)
        self._seed = seed
        self._done = 0
        self._exchange = Exchange()
        self._scratch = scratch_folder("dialin-function-", Path(tempfile.gettempdir()))
        self._checkpoint = Checkpoint(self._scratch)
        self._thread: threading.Thread | None = None
        self._failure: str | None = None
        self._returned = ""  # a number that the function returned, in words: it may have been meant as a report

    def epoch(self) -> Metrics:
        """The next epoch that was not reported before. Raises FunctionError, whose text is the function's traceback."""
        if self._thread is None:
            self._thread = self._begin()
        while (report := self._exchange.next()) is not None:
            if report.epoch > self._done:
                self._done = report.epoch
                return report.metrics
        name = self._objective.function
        if self._failure is not None:
            raise FunctionError(self._failure)
        if not self._done:
            raise FunctionError(
                f"{name} returned{self._returned} and had reported nothing; it calls trial.report(epoch, value)"
            )
        unread = f"; what it returned,{self._returned}, is not read: it reports values" if self._returned else ""
        raise NoMoreEpochsError(f"{name} returned after epoch {self._done} of {self._objective.epochs}{unread}")

    def save(self, folder: Path) -> None:
        saved, state = self._checkpoint.newest()
        note = {"epoch": self._done, "saved": saved, "params": self._params}
        (folder / _NOTE).write_text(json.dumps(note))
        if state is not None:
            shutil.copytree(state, folder / _STATE)

    def load(self, folder: Path) -> None:
        note = json.loads((folder / _NOTE).read_text())
        if note["params"] != self._params:
            raise DataError(f"checkpoint {folder} belongs to another configuration: {note['params']}")
        self._done = note["epoch"]
        state = folder / _STATE
        if state.is_dir():
            # A copy, for checkpoints come and go while the function may still read it.
            kept = Path(shutil.copytree(state, self._scratch / "loaded"))
            self._checkpoint = Checkpoint(self._scratch, kept, note["saved"])

    def test(self) -> Metrics:
        """Nothing: what a function measures beside its value, it reports."""
        return {}

    def findings(self) -> Sequence[Finding]:
        return ()

    def close(self) -> None:
        """End the function: it is told that the trial is over, and has `CLOSE_SECONDS` to return."""
        self._exchange.close()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                print(
                    f"{self._objective.function} goes on after the end of its trial, until it reports again; "
                    "let it look at trial.should_stop after each report",
                    file=sys.stderr,
                )
        remove_scratch(self._scratch)

    def _begin(self) -> threading.Thread:
        objective = self._objective
        trial = FunctionTrial(self._seed, objective.epochs, objective.metric, self._checkpoint, self._exchange)
        thread = threading.Thread(target=self._call, args=(trial,), name=objective.function, daemon=True)
        thread.start()
        return thread

    def _call(self, trial: FunctionTrial) -> None:
        try:
            returned = load_function(self._objective.file, self._objective.function)(dict(self._params), trial)
            self._returned = _number_text(returned)
        except TrialStoppedError:
            pass
        except BaseException as error:  # noqa: BLE001  a person's code: whatever it raises is this trial's failure
            self._failure = _text(error)
            if self._exchange.closed:
                said = "raised after its trial was stopped or paused, which changes nothing"
                print(f"{self._objective.function} {said}:\n{self._failure}", file=sys.stderr)
        finally:
            self._exchange.end()


def _number_text(returned: object) -> str:
    """A number, with a space before it; empty for anything else, such as a model, which nobody takes for a report."""
    try:
        return f" {number('returned', returned):g}"
    except TypeError:
        return ""


def load_function(file: Path, function: str) -> Callable[[dict[str, Scalar], FunctionTrial], Any]:
    """The function of a file, which is run for it, once a process; it can import what lies beside it. Raises
    FunctionError when it has none."""
    with _LOADING:
        module = _module(file)
    found = getattr(module, function, None)
    if not callable(found):
        raise FunctionError(f"{function!r} in {file} is no function")
    return found  # type: ignore[no-any-return]


_LOADING = threading.Lock()


def _module(file: Path) -> ModuleType:
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # last, so that it hides nothing
    name = _module_name(file)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise FunctionError(f"{file} is not Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, as `import` has it: dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_name(file: Path) -> str:
    """The name that `import` gives it, by which processes that it starts find it too; one of its own where that name
    already means another module."""
    if "." not in file.stem:
        there = sys.modules.get(file.stem)
        spec = importlib.util.find_spec(file.stem) if there is None else there.__spec__
        if spec is not None and spec.origin == str(file):
            return file.stem
    return f"{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}".replace(".", "_")


def _text(error: BaseException) -> str:
    """The traceback from the person's own code on. Its text crosses processes and is stored: any text may be in it."""
    own = error.__traceback__
    while own is not None and own.tb_next is not None and _is_ours(own.tb_frame.f_code.co_filename):
        own = own.tb_next
    return log_text("".join(traceback.format_exception(type(error), error, own)).rstrip())


def _is_ours(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<frozen importlib")
