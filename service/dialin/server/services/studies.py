"""Studies as they are read: the list, one study, its best configuration, its curve, its driver's log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from dialin import schemas
from dialin.errors import NoResultError, UnreadableError, UsageError, did_you_mean
from dialin.lifecycle import StudyState
from dialin.paths import OutputFolder, StudyFolder
from dialin.results.claims import judge
from dialin.results.diagnosis import diagnose
from dialin.results.export import best_config
from dialin.search.goals import Goals
from dialin.server.services.mlflow_links import MlflowLinks
from dialin.server.services.pagination import decode_position, encode_cursor
from dialin.server.services.queue_position import waits_for
from dialin.server.services.time_left import seconds_left
from dialin.server.study_reader import MlflowRuns, SharedStudyReader
from dialin.server.trial_view import TrialView
from dialin.settings import Settings
from dialin.specification import damage_of, spec_of_study, stored_spec
from dialin.specification.study_spec import StudySpec
from dialin.store.entries import Entry
from dialin.store.studies import StudyRow
from dialin.store.submissions import Submissions
from dialin.study_flow import schema_builder
from dialin.study_flow.snapshot import keeps_luckiest
from dialin.texts import one_line, read_tail
from dialin.tracking.lag import Lag

API = "/api/v1"

T = TypeVar("T")


class StudyService:
    """Reads the studies of one server. Every method with a study's id raises NotFoundError for an unknown one."""

    def __init__(
        self, settings: Settings, submissions: Submissions, reader: SharedStudyReader, links: MlflowLinks
    ) -> None:
        self._submissions, self._reader, self._links = submissions, reader, links
        self._out = OutputFolder(settings.out)

    def list_page(
        self,
        *,
        states: Sequence[str] = (),
        name: str | None = None,
        owner: str | None = None,
        archived: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> schemas.StudyPage:
        """A page of studies, newest first. Raises UsageError for an unknown state or cursor."""
        found = self._submissions.page(
            states=[_state(state) for state in states],
            name=name,
            owner=owner,
            archived=archived,
            limit=limit + 1,
            before=decode_position(cursor),
        )
        last = found[limit - 1].study if len(found) > limit else None
        following = encode_cursor(last.created_at, last.id) if last is not None else None
        return schemas.StudyPage(studies=[self.in_short(entry) for entry in found[:limit]], next=following)

    def entry(self, study_id: str) -> Entry:
        """A study's rows."""
        return self._submissions.get(study_id)

    def readable_row(self, study_id: str) -> StudyRow:
        """A study's row. Raises UnreadableError where its specification cannot be read."""
        row = self.entry(study_id).study
        spec_of_study(study_id, row.spec)
        return row

    def folder(self, study_id: str) -> StudyFolder:
        """A study's folder. The id is looked up first, so no text of a request is ever taken for a path."""
        return self._out.study(self.entry(study_id).study.id)

    def short(self, study_id: str) -> schemas.Study:
        """A study in short."""
        return self.in_short(self.entry(study_id))

    def in_short(self, entry: Entry) -> schemas.Study:
        """A study in short, from its rows. Parts that cannot be read are named in `unreadable`."""
        row = entry.study
        damage: list[str] = []
        outcome = _read_or(lambda: self._outcome(row), schema_builder.NO_OUTCOME, damage)
        runs = _read_or(lambda: self._reader.mlflow_runs(row), MlflowRuns(), damage)
        return schema_builder.study(
            entry,
            outcome,
            _read_or(lambda: self._reader.lag(row), Lag(), damage),
            links=self._links_of(row.id, runs),
            waits_for=waits_for(entry, self._submissions),
            damage=damage,
            now=time.time(),
        )

    def in_full(self, study_id: str) -> schemas.StudyInFull:
        """A study with its specification and what was found out about it."""
        entry = self.entry(study_id)
        short = self.in_short(entry)
        try:
            row = self.readable_row(study_id)
            view = self._reader.view(row)
            snapshot = self._reader.snapshot(row, view)
        except UnreadableError:  # `unreadable` says why
            return schema_builder.study_in_full(short, entry.study, None)
        return schema_builder.study_in_full(
            short,
            row,
            snapshot,
            claim=view.derived(("claim", row.spec), lambda: _judge(snapshot.spec, view)),
            doctor=view.derived("doctor", lambda: [each.text(len(view)) for each in diagnose(view.records)]),
            seconds_left=self._seconds_left(entry, snapshot.spec, view),
            violated=view.derived(
                ("violations", row.spec), lambda: schema_builder.violations(snapshot.spec, view.records)
            ),
        )

    def best(self, study_id: str, trial: int | None = None) -> schemas.Best:
        """The best configuration so far, or that of a trial of the Pareto front. Raises NoResultError, with the reason,
        while there is none, and UsageError for a trial that is not on the front."""
        return schema_builder.best(self._reader.snapshot(self.readable_row(study_id)), trial)

    def best_yaml(self, study_id: str, trial: int | None = None) -> str:
        """The configuration of `best` as a specification that trains it again. Raises as that method."""
        row = self.readable_row(study_id)
        view = self._reader.view(row)
        snapshot = self._reader.snapshot(row, view)
        found, result = schema_builder.best_trial(snapshot, trial), snapshot.result
        key = ("yaml", row.spec, str(found), str(result.looks))
        return view.derived(key, lambda: best_config(snapshot.spec, snapshot.trials[found.trial], result))

    def find_best_yaml(self, study_id: str, trial: int | None = None) -> str | None:
        """As `best_yaml`; None while there is no best configuration, and for a trial that is not on the front."""
        try:
            return self.best_yaml(study_id, trial)
        except (NoResultError, UsageError):
            return None

    def curve(self, study_id: str) -> schemas.BestCurve:
        """How the best value grew."""
        row = self.readable_row(study_id)
        return schema_builder.best_curve(self._reader.curve(row, Goals.of(stored_spec(row.spec))))

    def further(self, study_id: str) -> tuple[str, ...]:
        """The names of what counts beside the study's first metric: further metrics, and what constraints bound. Empty
        where the specification cannot be read."""
        text = self.entry(study_id).study.spec
        return () if damage_of(text) else stored_spec(text).further

    def driver_log(self, study_id: str, tail: int) -> str:
        """The last lines of the driver's log; empty while there is none."""
        return read_tail(self.folder(study_id).logs / "driver.log", tail)

    def _outcome(self, row: StudyRow) -> schema_builder.Outcome:
        spec, luckiest = None if damage_of(row.spec) else stored_spec(row.spec), keeps_luckiest(row)
        return schema_builder.outcome_in_summary(row) or self._reader.outcome(
            row,
            lambda view: view.derived(
                ("outcome", row.spec, luckiest),
                lambda: schema_builder.outcome_of_trials(spec, view.records, luckiest=luckiest),
            ),
        )

    def _seconds_left(self, entry: Entry, spec: StudySpec, view: TrialView) -> float | None:
        if entry.study.state is not StudyState.RUNNING or entry.submission is None:
            return None  # how long a study of the command line has been driven is not stored while it runs
        concurrency = entry.submission.concurrency or 1
        seconds = schema_builder.driven_seconds(entry, time.time())
        return view.derived(("left", entry.study.spec), lambda: seconds_left(spec, view, seconds, concurrency))

    def _links_of(self, study_id: str, runs: MlflowRuns) -> schemas.Links:
        own = f"{API}/studies/{study_id}"
        return schemas.Links(
            self=own,
            trials=f"{own}/trials",
            best=f"{own}/best",
            curve=f"{own}/curve",
            events=f"{own}/events",
            logs=f"{own}/logs",
            page=f"/studies/{study_id}",
            mlflow=self._links.run(runs.experiment, runs.parent),
        )


def _read_or(read: Callable[[], T], otherwise: T, damage: list[str]) -> T:
    """A part of a study; where it cannot be read, `otherwise`, and the reason is added to `damage`."""
    try:
        return read()
    except UnreadableError as error:
        damage.append(one_line(error))
        return otherwise


def _judge(spec: StudySpec, view: TrialView) -> str | None:
    """The verdict on the study's claim; None for a study without one."""
    return judge(spec, spec.claim, view.records).text() if spec.claim is not None else None


def _state(text: str) -> StudyState:
    if text not in list(StudyState):
        raise UsageError(f"state {text!r}: {did_you_mean(text, list(StudyState))}")
    return StudyState(text)
