"""The few calls of MLflow's public client that the recorder makes, each of which may be repeated without harm."""

from __future__ import annotations

import getpass
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dialin.paths import OutputFolder
from dialin.texts import printable, shorten
from dialin.tracking.changes import RUNNING, Change
from dialin.tracking.local_artifacts import path_inside

_LOG = logging.getLogger(__name__)

METRICS_A_CALL, PARAMS_A_CALL, TAGS_A_CALL = 800, 100, 100  # MLflow takes at most 1000 things in all
TAG_CHARACTERS = 8000
SERVED = "mlflow-artifacts"  # the scheme of artifact locations that only a server resolves
MOST_REFUSALS = 3  # attempts to write a file
REFUSED = "INVALID_PARAMETER_VALUE"  # MLflow would refuse it each time: a deleted run, a param that changes
SOURCE = {"mlflow.source.name": "dialin", "mlflow.source.type": "LOCAL"}  # columns of MLflow's table


@dataclass(frozen=True)
class FoundRun:
    """A run that has a study's tag.

    id: MLflow's id of the run.
    trial: the trial's number; None for the run of the study.
    parent: MLflow's id of the study's run; None for that run itself.
    active: whether it exists and was not deleted.
    """

    id: str
    trial: str | None
    parent: str | None
    active: bool


class RunGoneError(Exception):
    """A run or an experiment no longer exists: MLflow was emptied, or replaced by another."""


class MlflowRuns:
    """Runs of studies in one MLflow.

    client: an MlflowClient. Its errors are raised as they are, except that RunGoneError replaces that of a missing run.
    artifacts: where files go when MLflow is a database of ours; None for a server.

    What MLflow refuses, and would refuse each time, is logged and left out.
    """

    def __init__(self, client: Any, artifacts: Path | None) -> None:
        self._client = client
        self._artifacts = artifacts
        self._refused: Counter[str] = Counter()  # how often a file could not be written

    def experiment(self, name: str) -> str:
        """The id of the experiment of this name. It is made if it is missing, and restored if it was deleted."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            if self._artifacts is not None:
                mask = OutputFolder(self._artifacts.parent).mask
                self._artifacts.mkdir(mode=0o777 & ~mask, exist_ok=True)  # other accounts could place a link in it
            # MLflow's default would be a folder in the current folder of this process.
            location = (self._artifacts / name).resolve().as_uri() if self._artifacts is not None else None
            # MLflow then opens the experiment's training runs; its default is the page of a chat application.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(self._client.create_experiment(name, artifact_location=location, tags=tags))
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def find(self, experiment: str, study: str, trial: str | None = None) -> Iterator[FoundRun]:
        """Every run of a study, or of one trial; also deleted ones: what a person deleted is not made again."""
        from mlflow.entities import ViewType

        wanted = f"tags.`dialin.study` = '{study}'"
        if trial is not None:
            wanted += f" and tags.`dialin.trial` = '{trial}'"
        token = None
        while True:
            with _gone("experiment", experiment):
                page = self._client.search_runs(
                    [experiment],
                    filter_string=wanted,
                    run_view_type=ViewType.ALL,
                    max_results=1000,
                    page_token=token,
                )
            for run in page:
                tags = run.data.tags
                yield FoundRun(
                    id=run.info.run_id,
                    trial=tags.get("dialin.trial"),
                    parent=tags.get("mlflow.parentRunId"),
                    active=run.info.lifecycle_stage == "active",
                )
            token = page.token
            if not token:
                return

    def create(self, experiment: str, study: str, change: Change, parent: str) -> str:
        """Make a run for the study, or one below `parent` for a trial; returns its id. It has the change's tags."""
        tags = {name: _tag(value) for name, value in change.tags.items()}
        tags |= {**SOURCE, "mlflow.user": _user(), "dialin.study": study}
        if change.trial is None:
            name, own = study, {"dialin.kind": "study"}
        else:
            name = f"trial-{int(change.trial):04d}"
            own = {"dialin.kind": "trial", "dialin.trial": change.trial, "mlflow.parentRunId": parent}
        with _gone("experiment", experiment):
            run = self._client.create_run(experiment, start_time=change.started_at, tags=tags | own, run_name=name)
        change.tags.clear()
        return str(run.info.run_id)

    def delete(self, run: str) -> None:
        """Delete a run; MLflow keeps it among its deleted ones."""
        self._client.delete_run(run)

    def write(self, run: str, change: Change) -> None:
        """Write a change to a run. What was written is removed from the change: a second call continues where the first
        one failed.

        Raises RunGoneError when there is no such run."""
        from mlflow.exceptions import MlflowException

        with _gone("run", run):
            for write in (self._log, self._set_status):
                try:
                    write(run, change)
                except MlflowException as error:
                    if error.error_code != REFUSED:
                        raise
                    _LOG.warning("run %s: left out because MLflow refuses it: %s", run, error)
        self._put_files(run, change)

    def _log(self, run: str, change: Change) -> None:
        from mlflow.exceptions import MlflowException

        if change.rebuilt:
            self._leave_out_existing_points(run, change)
        while change.points or change.params or change.tags:
            try:
                self._log_batch(run, change)
            except MlflowException as error:
                if error.error_code != REFUSED or not self._turn_params_to_tags(run, change):
                    raise

    def _log_batch(self, run: str, change: Change) -> None:
        """Write as much of a change as one call takes, and remove that from the change."""
        from mlflow.entities import Metric, Param, RunTag

        points = change.points[:METRICS_A_CALL]
        params = dict(list(change.params.items())[:PARAMS_A_CALL])
        tags = dict(list(change.tags.items())[:TAGS_A_CALL])
        self._client.log_batch(
            run,
            [Metric(point.name, point.value, point.time, point.step) for point in points],
            [Param(name, value) for name, value in params.items()],
            [RunTag(name, _tag(value)) for name, value in tags.items()],
        )
        del change.points[: len(points)]
        for name in params:
            del change.params[name]
        for name in tags:
            del change.tags[name]

    def _leave_out_existing_points(self, run: str, change: Change) -> None:
        """Remove rebuilt points that MLflow has: they have another time there, so that MLflow would keep both."""
        there = {
            name: {point.step for point in self._client.get_metric_history(run, name)}
            for name in {point.name for point in change.points}
        }
        change.points[:] = [point for point in change.points if point.step not in there[point.name]]
        change.rebuilt = False

    def _turn_params_to_tags(self, run: str, change: Change) -> bool:
        """MLflow never changes a param: one that differs, as of an extended study, becomes a tag. Returns whether any
        did."""
        there = self._client.get_run(run).data.params
        changed = [name for name, value in change.params.items() if there.get(name, value) != value]
        for name in changed:
            change.tags[f"dialin.{name}"] = change.params.pop(name)
        return bool(changed)

    def _set_status(self, run: str, change: Change) -> None:
        if change.status == RUNNING:
            if self._client.get_run(run).info.status != RUNNING:
                self._client.update_run(run, status=RUNNING)
        elif change.status is not None:
            self._client.set_terminated(run, status=change.status, end_time=change.ended_at)
        change.status = None

    def _put_files(self, run: str, change: Change) -> None:
        while change.files:
            file = Path(change.files[0])
            if file.exists():
                self._put_file(run, file)
            else:
                _LOG.warning("run %s: %s is left out because it no longer exists", run, file)
            del change.files[0]

    def _put_file(self, run: str, file: Path) -> None:
        """Copy a file to a run. One that cannot be written although MLflow answers is left out after a few attempts: it
        is in the study's folder, and must not keep the rest of the study from MLflow. Until then errors are raised."""
        there = self._client.get_run(run).info.artifact_uri
        if self._is_elsewhere(there):
            self._leave_out(run, file, there, "that is not in this output folder, which was copied or moved")
            return
        try:
            if (folder := self._served_folder(there)) is not None:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / file.name).unlink(missing_ok=True)  # the target of a link would be overwritten
                shutil.copy2(file, folder / file.name)
            else:
                self._client.log_artifact(run, str(file))
        except Exception as error:  # each kind of artifact store has errors of its own
            _LOG.info("run %s: writing %s failed", run, file, exc_info=True)
            self._client.get_run(run)  # raises if MLflow does not answer at all
            self._refused[str(file)] += 1
            if self._refused[str(file)] < MOST_REFUSALS:
                raise
            self._leave_out(run, file, there, str(error))

    def _leave_out(self, run: str, file: Path, there: str, why: str) -> None:
        _LOG.warning("run %s: %s is left out because it cannot be written to %s: %s", run, file, there, why)
        self._client.set_tag(run, f"dialin.left_out.{file.stem}", f"{file}: {why}"[:TAG_CHARACTERS])

    def _is_elsewhere(self, uri: str) -> bool:
        """Whether a database of ours says that a run's artifacts are in another output folder. Then this output folder
        is a copy, and writing would replace files of the original."""
        parts = urlsplit(uri)
        if self._artifacts is None or parts.scheme not in ("", "file"):
            return False
        return not path_inside(self._artifacts.resolve(), Path(unquote(parts.path)))

    def _served_folder(self, uri: str) -> Path | None:
        """The folder of artifacts whose address only a server resolves, while that server is down and its database is
        written directly; None when MLflow's client can write them itself."""
        parts = urlsplit(uri)
        if parts.scheme != SERVED or self._artifacts is None:
            return None
        root = self._artifacts.resolve()
        folder = root / parts.path.lstrip("/")
        return folder if path_inside(root, folder) else None


@contextmanager
def _gone(kind: str, identity: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise RunGoneError(f"{kind} {identity} no longer exists: {error}") from error
        raise


def _tag(text: str) -> str:
    """A tag that MLflow's database takes: it refuses a lone surrogate each time."""
    return shorten(printable(text), TAG_CHARACTERS)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user of a container may have no name
        return "dialin"
