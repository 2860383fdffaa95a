"""Studies of this machine from Python: `dialin.run_study` and `dialin.open_study`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

from dialin.client.answers import table, trial_row
from dialin.client.local import LocalStudies
from dialin.client.prepare import SpecSource, load_spec
from dialin.events.publisher import Listener
from dialin.results.summary import Result
from dialin.schemas import Best, LocalStudy, ParetoPoint, Trial
from dialin.settings import Settings
from dialin.specification.study_spec import StudySpec
from dialin.supervisor.logs import OPTUNA_LOGGERS, quiet_optuna


def run_study(
    spec: SpecSource | StudySpec,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    data_dir: str | Path | None = None,
    runner: Literal["ray", "inline"] = "ray",
    progress: bool | Listener = True,
) -> Result:
    """Run a study on this machine until it has ended, and return what came out.

    >>> import dialin
    >>> space = '''
    ... name: tiny
    ... objective: {dataset: synthetic}
    ... space: {lr: {min: 1.0e-3, max: 1.0, log: true}}
    ... budget: {trials: 4, epochs: 2}
    ... '''
    >>> result = dialin.run_study(space, out="studies", runner="inline", progress=False)
    >>> result.state
    'complete'
    >>> 1.0e-3 <= result.best.params["lr"] <= 1.0
    True

    `spec`: a YAML file, YAML text of more than one line, the name of a shipped search space such as "digits", the same
    as a dict, or a `StudySpec`. `out`: the folder to keep the study in; by default DIALIN_OUT, else ./dialin-data.
    `overrides`: changes as `--set` takes them. `data_dir`: the folder of the data sets. `runner`: "ray" trains trials
    in parallel; "inline" trains one after the other in this process, where a debugger can follow. `progress`: True
    prints to the terminal or notebook; False prints nothing; a `Listener` hears of every trial and epoch.

    `result.best` has the best configuration: its `params`, `value` and `trial`; it is None when no trial reported a
    finite value, and then `result.reason` says why. Ctrl-C ends the study cleanly: the result's state is "interrupted",
    and `dialin resume` continues it.

    Raises SpecError for a wrong specification, DataError for a data set that cannot be had, and UsageError for an
    unknown runner, all before anything is stored.
    """
    # Ray, torch and the rest of the flow are loaded where a study runs, not where one is read.
    from dialin.study_flow import run

    checked = spec if isinstance(spec, StudySpec) else load_spec(spec, overrides)
    with _quiet_optuna(), _listener(progress) as listener:
        return run.run_study(checked, _settings(out, data_dir), listener, runner).result


def open_study(reference: str = "last", *, out: str | Path | None = None) -> FolderStudy:
    """Open a study of a folder on this machine, without a server; it may still be running.

    >>> import dialin
    >>> study = dialin.open_study("tiny", out="studies")
    >>> study.state
    'complete'
    >>> study.best().epoch in (1, 2)
    True
    >>> [trial.trial for trial in study.trials()]
    [0, 1, 2, 3]
    >>> list(study.to_dataframe()[["trial", "params_lr"]].columns)
    ['trial', 'params_lr']
    >>> bool(study.curve()["best"].is_monotonic_increasing)
    True

    `reference`: the study's id, its name (then the newest study of that name), or "last" for the newest of all. `out`:
    the folder of the studies; by default DIALIN_OUT, else ./dialin-data.

    Raises NotFoundError for a study that does not exist there, and UnreadableError for one that is damaged or was
    written by another version of dialin.
    """
    return FolderStudy(reference, _settings(out))


class FolderStudy:
    """A study of a folder on this machine. Made by `dialin.open_study`.

    Every method reads what is stored now and closes the database again, so nothing has to be closed afterwards.
    """

    def __init__(self, reference: str, settings: Settings) -> None:
        self._settings = settings
        # The id is looked up once: `last` and a name would be another study after the next run.
        with LocalStudies(settings) as studies:
            self._id = studies.study(reference).id

    def __repr__(self) -> str:
        return f"FolderStudy({self._id!r}, out={str(self._settings.out)!r})"

    @property
    def id(self) -> str:
        """The study's id."""
        return self._id

    @property
    def state(self) -> str:
        """queued, running, complete, failed or interrupted."""
        return self.info().state.value

    def info(self) -> LocalStudy:
        """The study in full: its specification, counts, costs, findings, and the paths of its files."""
        with LocalStudies(self._settings) as studies:
            return studies.study(self._id)

    def best(self, trial: int | None = None) -> Best:
        """The best configuration so far; with several metrics that of the Pareto front which is best by the first one.
        `pareto` lists the others.

        `trial`: the trial of the front that is wanted. Raises NoResultError while no trial has reported a finite value
        or none meets the constraints, and UsageError for a trial that is not on the front.
        """
        with LocalStudies(self._settings) as studies:
            return studies.best(self._id, trial)

    def pareto(self) -> list[ParetoPoint]:
        """The Pareto front of several metrics, from the best by the first one to the worst; with one metric the best
        trial alone. Empty while there is none."""
        with LocalStudies(self._settings) as studies:
            return studies.pareto(self._id)

    def best_yaml(self, trial: int | None = None) -> str:
        """The configuration of `best` as a specification that trains it again. Raises as that method."""
        with LocalStudies(self._settings) as studies:
            return studies.best_yaml(self._id, trial)

    def trials(self) -> list[Trial]:
        """Every trial in the order of its number; a trial's `values` are its learning curve, by epoch."""
        with LocalStudies(self._settings) as studies:
            return studies.trials(self._id)

    def to_dataframe(self) -> Any:
        """Every trial as a row of a pandas DataFrame, each knob as a column `params_NAME`; with several metrics or
        constraints each of what counts as a column `metrics_NAME`."""
        return table([trial_row(trial) for trial in self.trials()])

    def curve(self) -> Any:
        """How the best value, or the hypervolume of several metrics, improved over epochs, trials and seconds, as a
        pandas DataFrame."""
        with LocalStudies(self._settings) as studies:
            points = studies.curve(self._id).points
        return table([point.model_dump() for point in points])


def _settings(out: str | Path | None, data_dir: str | Path | None = None) -> Settings:
    return Settings.read(out=None if out is None else str(out), data_dir=None if data_dir is None else str(data_dir))


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Without Optuna's announcements of each study that it opens, which would stand among the progress; its warnings
    stay, and afterwards the program's own settings are as before."""
    loggers = [logging.getLogger(name) for name in OPTUNA_LOGGERS]
    before = [logger.level for logger in loggers]
    quiet_optuna()
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _listener(progress: bool | Listener) -> AbstractContextManager[Listener]:
    from rich.console import Console

    from dialin.study_flow.progress import Progress

    if isinstance(progress, bool):
        return Progress(Console(quiet=not progress, highlight=False, soft_wrap=True, markup=False, emoji=False))
    return nullcontext(progress)
