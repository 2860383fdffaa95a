"""One study of a server, from Python."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

from dialin.client.answers import pages, read_answer, read_study, study_path, table, trial_row
from dialin.client.events import EventReader
from dialin.client.http import Connection
from dialin.errors import NoResultError
from dialin.schemas import Best, BestCurve, Event, ParetoPoint, Study, StudyInFull, Trial

PROGRESS_SECONDS = 2.0  # between two lines of progress, at least


class StudyHandle:
    """One study of a server.

    `info` is the study as the server last described it (`dialin.schemas.Study`); `refresh` asks again.
    """

    def __init__(self, connection: Connection, info: Study) -> None:
        self._connection = connection
        self._path = study_path(info.id)
        self.info = info

    def __repr__(self) -> str:
        return f"StudyHandle({self.id!r}, {self.state})"

    @property
    def id(self) -> str:
        """The study's id, unique on the server."""
        return self.info.id

    @property
    def state(self) -> str:
        """queued, running, complete, failed or interrupted, as of the last answer."""
        return self.info.state

    def link(self, name: str) -> str | None:
        """One of the study's links (`page`, `mlflow`, ...) as a whole address; None when there is none."""
        link = getattr(self.info.links, name, None)
        return urljoin(f"{self._connection.url}/", link) if link else None

    def refresh(self) -> StudyHandle:
        """Ask the server for the study again. Returns this handle."""
        self.info = read_study(Study, self._connection.json("GET", self._path))
        return self

    def detail(self) -> StudyInFull:
        """The study in full: its specification as YAML, its costs, findings and calibration."""
        study = read_study(StudyInFull, self._connection.json("GET", self._path))
        self.info = study
        return study

    def wait(self, progress: bool = True, timeout: float | None = None) -> StudyHandle:
        """Return once the study has ended; `state` and `info.reason` say how.

        `progress`: print a line to standard error whenever the study has changed. Raises TimeoutError after `timeout`
        seconds.
        """
        printed_at, line = -PROGRESS_SECONDS, ""
        reader = self._reader(None if timeout is None else time.monotonic() + timeout)
        for event in reader.read():
            if not progress or (time.monotonic() - printed_at < PROGRESS_SECONDS and not self.info.ended):
                continue
            if event.kind != "study":
                reader.look()  # events of trials come without the counts and the best value that the line shows
            printed_at = time.monotonic()
            if self.info.line() != line:
                line = self.info.line()
                print(line, file=sys.stderr, flush=True)
        return self

    def events(self, last_id: str | None = None) -> Iterator[Event]:
        """The study's events from its start, or after the event with the id `last_id`, until the study has ended.

        A connection that breaks is made again. Where the server's event stream cannot be reached, only `study` events
        arrive, one whenever the study has changed.
        """
        return self._reader(None).read(last_id)

    def best(self, trial: int | None = None) -> Best:
        """The best configuration so far; with several metrics that of the Pareto front which is best by the first one.
        `pareto` lists the others.

        `trial`: the trial of the front that is wanted. Raises NoResultError while no trial has reported a finite value
        or none meets the constraints, and UsageError for a trial that is not on the front.
        """
        data = self._connection.json("GET", f"{self._path}/best", params=_on_front(trial))
        return read_answer(Best, data, "a best configuration")

    def pareto(self) -> list[ParetoPoint]:
        """The Pareto front of several metrics, from the best by the first one to the worst; with one metric the best
        trial alone. Empty while there is none."""
        detail = self.detail()
        if detail.pareto is not None:
            return detail.pareto
        try:
            best = self.best()
        except NoResultError:
            return []
        values = {best.metric: best.value}
        return [
            ParetoPoint(
                trial=best.trial, values=values, bounded=best.bounded, epoch=best.epoch, params=best.params,
                link=self.info.links.best,
            )
        ]  # fmt: skip

    def best_yaml(self, trial: int | None = None) -> str:
        """The configuration of `best` as a specification that trains it again. Raises as that method."""
        headers = {"Accept": "application/yaml"}
        return self._connection.text(f"{self._path}/best", headers=headers, params=_on_front(trial))

    def trials(self) -> Any:
        """Every trial in the order of its number as a pandas DataFrame, each knob as a column `params_NAME`.

        Without pandas: a list of dicts.
        """
        return table([trial_row(trial) for trial in self.trial_list()])

    def trial_list(self) -> list[Trial]:
        """Every trial in the order of its number."""
        query = {"sort": "number", "limit": 1000}
        data = list(pages(self._connection, f"{self._path}/trials", "trials", query))
        return read_answer(list[Trial], data, "trials")

    def trial(self, number: int) -> Trial:
        """One trial. Raises NotFoundError for a number that the study does not have."""
        data = self._connection.json("GET", f"{self._path}/trials/{int(number)}")
        return read_answer(Trial, data, f"trial {number}")

    def curve(self) -> Any:
        """How the best value, or the hypervolume of several metrics, improved over epochs, trials and seconds: a pandas
        DataFrame, or a list of dicts."""
        return table([point.model_dump() for point in self.best_curve().points])

    def best_curve(self) -> BestCurve:
        """How the best value improved, with its metric."""
        return read_answer(BestCurve, self._connection.json("GET", f"{self._path}/curve"), "a curve")

    def logs(self, tail: int = 200, trial: int | None = None) -> str:
        """The last `tail` lines of the driver's log, or of one trial's, which ends with the traceback of its failure.

        Raises NotFoundError for a trial that the study does not have.
        """
        path = "logs" if trial is None else f"trials/{int(trial)}/log"
        return self._connection.text(f"{self._path}/{path}", params={"tail": tail})

    def stop(self) -> StudyHandle:
        """Ask the server to end the study; it keeps its trials and can be resumed. Raises ConflictError when the study
        has ended already."""
        return self._act("stop")

    def resume(self) -> StudyHandle:
        """Queue the study again. Raises ConflictError for one that is complete or has not ended."""
        return self._act("resume")

    def extend(self, trials: int | str | None = None, epochs: int | str | None = None) -> StudyHandle:
        """Enlarge the budget to a new number, or by "+N", and queue the study again.

        Raises UsageError for a budget that is not larger than the present one.
        """
        more = {name: str(value) for name, value in (("trials", trials), ("epochs", epochs)) if value is not None}
        return self._act("extend", json=more)

    def archive(self) -> None:
        """Remove the study from lists; nothing is deleted. Raises ConflictError for one that has not ended."""
        self._connection.send("DELETE", self._path)

    def _act(self, action: str, **request: Any) -> StudyHandle:
        self.info = read_study(Study, self._connection.json("POST", f"{self._path}/{action}", **request))
        return self

    def _reader(self, deadline: float | None) -> EventReader:
        def heard(info: Study) -> None:
            self.info = info

        return EventReader(self._connection, self.info, deadline, heard, lambda: self.refresh().info)


def _on_front(trial: int | None) -> dict[str, int]:
    """The query for a trial of the Pareto front."""
    return {} if trial is None else {"trial": int(trial)}
