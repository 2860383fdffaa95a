"""The objective python_function: a user's training function. Its file is executed only where trials run."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import shutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from dialin.errors import DataError, FunctionError, UsageError
from dialin.objectives.base import Metrics, NoMoreEpochsError
from dialin.objectives.function_trial import (
    Checkpoint,
    Exchange,
    FunctionTrial,
    TrialStoppedError,
    WantedValues,
    number,
)
from dialin.planning.plan import Resources
from dialin.specification.domains import Scalar
from dialin.specification.findings import Finding
from dialin.specification.functions import check_function
from dialin.specification.range_tests import Curve, Sweep
from dialin.specification.study_spec import PythonSpec, StudySpec
from dialin.supervisor.scratch_dir import remove_scratch, scratch_folder
from dialin.texts import log_text

_LOG = logging.getLogger(__name__)
CLOSE_SECONDS = 5.0
"""How long the end of a trial waits for its function to return."""
# Names in a checkpoint: the folder that the function saved, and the file about the run.
_STATE, _NOTE = "state", "run.json"


@dataclass(frozen=True)
class PythonFunction:
    """A function of a file, called as function(config, trial) whenever a trial starts or continues."""

    file: Path
    """The Python file."""
    function: str
    """Name of the function in it."""
    metric: str
    """Name of the value that the function reports."""
    epochs: int
    """Epochs of a full trial."""
    further: tuple[str, ...] = ()
    """Names of the other metrics that the study optimizes."""
    bounded: tuple[str, ...] = ()
    """Names of the values that constraints bound."""

    @classmethod
    def from_spec(cls, spec: StudySpec, asked: PythonSpec) -> PythonFunction:
        """Return the objective of a specification; `asked` is its section."""
        further = tuple(metric.name for metric in spec.metrics[1:])
        return cls(asked.file, asked.function, asked.metric, spec.budget.epochs, further, tuple(spec.constraints))

    @property
    def wanted(self) -> WantedValues:
        """What each report of the function has to hold."""
        return WantedValues((self.metric, *self.further), self.bounded)

    def prepare(self, progress: Callable[[str], None]) -> None:
        """Raise FunctionError if the file has no such function. The file is parsed and not executed."""
        try:
            check_function(self.file, self.function)
        except ValueError as error:
            raise FunctionError(str(error)) from None

    def range_test(self, params: Mapping[str, Scalar], seed: int, resources: Resources, sweep: Sweep) -> Curve:
        """Raise UsageError: dialin does not know the steps of the function."""
        self._has_no_range_test()

    def range_test_epochs(self, params: Mapping[str, Scalar], steps: int) -> float:
        """Raise UsageError, as `range_test` does."""
        self._has_no_range_test()

    def start(self, params: Mapping[str, Scalar], seed: int, resources: Resources) -> FunctionRun:
        """Start a trial. The function is called when the first epoch is asked for."""
        return FunctionRun(self, params, seed)

    def _has_no_range_test(self) -> NoReturn:
        raise UsageError(
            f"{self.file.name}:{self.function} is a user's training function, for which there is no range test"
        )


class FunctionRun:
    """One trial. The function runs in a thread, which starts with the first epoch.

    If the function saved its state before the epoch to continue from, or not at all, it trains the epochs in between
    again; these are not reported a second time.
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
        self._returned = ""  # the number that the function returned, as text: it may be meant as a report

    def epoch(self) -> Metrics:
        """Return the next epoch that was not reported before. Raises FunctionError with the function's traceback."""
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
                f"{name} returned{self._returned} without a report; call trial.report(epoch, value) after each epoch"
            )
        unread = f"; the returned value{self._returned} is ignored, only trial.report counts" if self._returned else ""
        raise NoMoreEpochsError(f"{name} returned after epoch {self._done} of {self._objective.epochs}{unread}")

    def save(self, folder: Path) -> None:
        """Write the last state that the function saved, and the last epoch that it reported."""
        saved, state = self._checkpoint.newest()
        note = {"epoch": self._done, "saved": saved, "params": self._params}
        (folder / _NOTE).write_text(json.dumps(note))
        if state is not None:
            shutil.copytree(state, folder / _STATE)

    def load(self, folder: Path) -> None:
        """Restore a saved state. Raises DataError for the state of another configuration."""
        note = json.loads((folder / _NOTE).read_text())
        if note["params"] != self._params:
            raise DataError(f"checkpoint {folder} belongs to another configuration: {note['params']}")
        self._done = note["epoch"]
        state = folder / _STATE
        if state.is_dir():
            # A copy, because old checkpoints are removed while the function may still read this one.
            kept = Path(shutil.copytree(state, self._scratch / "loaded"))
            self._checkpoint = Checkpoint(self._scratch, kept, note["saved"])

    def test(self) -> Metrics:
        """Return no metrics: dialin does not know a test split of the function."""
        return {}

    def findings(self) -> Sequence[Finding]:
        """Return no findings: the doctor has no access to the function's network."""
        return ()

    def close(self) -> None:
        """Set the function's `trial.should_stop`, and wait up to `CLOSE_SECONDS` until it returns."""
        self._exchange.close()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                _LOG.warning(
                    "%s still runs after the end of its trial, and will until its next report; it should check "
                    "trial.should_stop after each report, and return",
                    self._objective.function,
                )
        remove_scratch(self._scratch)

    def _begin(self) -> threading.Thread:
        objective = self._objective
        trial = FunctionTrial(self._seed, objective.epochs, objective.wanted, self._checkpoint, self._exchange)
        thread = threading.Thread(target=self._call, args=(trial,), name=objective.function, daemon=True)
        thread.start()
        return thread

    def _call(self, trial: FunctionTrial) -> None:
        try:
            returned = load_function(self._objective.file, self._objective.function)(dict(self._params), trial)
            self._returned = _number_text(returned)
        except TrialStoppedError:
            pass
        except BaseException as error:  # noqa: BLE001  a user's code may raise anything, which fails this trial
            self._failure = _traceback_of(error)
            if self._exchange.closed:
                said = "raised after its trial was stopped or paused; this does not change the trial"
                _LOG.warning("%s %s:\n%s", self._objective.function, said, self._failure)
        finally:
            self._exchange.end()


def _number_text(returned: object) -> str:
    """Return a number as text with a space before it; an empty text for anything else, such as a model."""
    try:
        return f" {number('returned', returned):g}"
    except TypeError:
        return ""


def load_function(file: Path, function: str) -> Callable[[dict[str, Scalar], FunctionTrial], Any]:
    """Return a function of a file. The file is executed once in each process, and can import modules of its folder.

    Raises FunctionError if the file has no such function.
    """
    with _LOADING:
        module = _module(file)
    found = getattr(module, function, None)
    if not callable(found):
        raise FunctionError(f"{function!r} in {file} is not a function")
    return found  # type: ignore[no-any-return]


_LOADING = threading.Lock()


def _module(file: Path) -> ModuleType:
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # last, so that the modules of its folder hide no installed module
    name = _module_name(file)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise FunctionError(f"{file} is not a Python file; its name has to end in .py")
    module = importlib.util.module_from_spec(spec)
    with ExitStack() as undo:
        # Registered before it is executed, as `import` does, because dataclasses and pickle look modules up there.
        sys.modules[name] = module
        undo.callback(sys.modules.pop, name, None)
        spec.loader.exec_module(module)
        undo.pop_all()
    return module


def _module_name(file: Path) -> str:
    """Return the module name that `import` would use, so that processes which the code starts find the module too.

    If that name belongs to another module, return a name with a digest of the path.
    """
    if "." not in file.stem:
        there = sys.modules.get(file.stem)
        spec = importlib.util.find_spec(file.stem) if there is None else there.__spec__
        if spec is not None and spec.origin == str(file):
            return file.stem
    return f"{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}".replace(".", "_")


def _traceback_of(error: BaseException) -> str:
    """Return the traceback without dialin's own frames, as printable text: an exception's message may be any text."""
    own = error.__traceback__
    while own is not None and own.tb_next is not None and _is_ours(own.tb_frame.f_code.co_filename):
        own = own.tb_next
    return log_text("".join(traceback.format_exception(type(error), error, own)).rstrip())


def _is_ours(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<frozen importlib")
