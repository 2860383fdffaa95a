"""Trials as they are read: sorted pages, one trial, its log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dialin import schemas
from dialin.errors import NotFoundError, UnreadableError, UsageError, did_you_mean
from dialin.lifecycle import TrialState
from dialin.search.goals import Goals
from dialin.server.services.mlflow_links import MlflowLinks
from dialin.server.services.pagination import decode_offset, encode_cursor
from dialin.server.services.studies import StudyService
from dialin.server.study_reader import MlflowRuns, SharedStudyReader
from dialin.server.trial_view import TrialRows, TrialView
from dialin.store.studies import StudyRow
from dialin.texts import read_tail

# The orders that can be asked for, and the field of a trial that each sorts by.
SORTS: Mapping[str, str] = {
    "number": "trial",
    "value": "value",
    "epochs": "epochs",
    "state": "state",
    "started_at": "started_at",
    "ended_at": "ended_at",
}


def sorts_of(goals: Goals) -> Mapping[str, str]:
    """The orders of a study's trials: SORTS, and each metric and each bounded quantity where there are several."""
    names = [] if goals.is_single else [goals.metrics[0].name, *goals.further]
    return {**SORTS, **{f"metrics.{name}": f"metrics.{name}" for name in names}}


class TrialService:
    """Reads the trials of studies. Every method raises NotFoundError for an unknown study, UnreadableError for a
    study whose specification or trials cannot be read."""

    def __init__(self, studies: StudyService, reader: SharedStudyReader, links: MlflowLinks) -> None:
        self._studies, self._reader, self._links = studies, reader, links

    def list_page(
        self,
        study_id: str,
        *,
        sort: str = "number",
        states: Sequence[str] = (),
        limit: int = 100,
        cursor: str | None = None,
    ) -> schemas.TrialPage:
        """A page of trials. Those without a value come last, whichever way they are sorted.

        `sort`: a name of SORTS, or with several metrics or constraints `metrics.NAME`; with a dash before it for the
        reverse order. Raises UsageError for an unknown order, state or cursor.
        """
        key, reverse = sort.removeprefix("-"), sort.startswith("-")
        wanted = {_state(state) for state in states}
        start = decode_offset(cursor)
        view, link = self._view(study_id)
        if key not in (known := sorts_of(view.goals)):
            raise UsageError(f"sort {sort!r}: {did_you_mean(key, known)}, with a dash before it for the reverse order")
        field, _, metric = known[key].partition(".")
        ordered = view.ordered(field, reverse, wanted, metric or None)
        shown = [view.trial(index, link(view.records[index].number)) for index in ordered[start : start + limit]]
        following = encode_cursor(start + limit) if start + limit < len(ordered) else None
        return schemas.TrialPage(trials=shown, next=following)

    def rows(self, study_id: str) -> TrialRows:
        """All trials by number, as mappings that make each field when it is asked for."""
        view, link = self._view(study_id)
        return view.rows(link)

    def get(self, study_id: str, number: int) -> schemas.Trial:
        """One trial. Raises NotFoundError for an unknown number."""
        view, link = self._view(study_id)
        if not 0 <= number < len(view):
            known = f"it has trials 0 to {len(view) - 1}" if len(view) else "it has no trials yet"
            raise NotFoundError(f"no trial {number} in {study_id}; {known}")
        return view.trial(number, link(number))

    def log(self, study_id: str, number: int, tail: int) -> str:
        """The last lines of a trial's output, with the traceback of one that failed; empty while there are none."""
        file = self._studies.folder(study_id).trial_log(number)
        if not file.exists():
            self.get(study_id, number)  # raises NotFoundError for an unknown trial
        return read_tail(file, tail)

    def _view(self, study_id: str) -> tuple[TrialView, Callable[[int], str | None]]:
        """A study's trials, and the link to MLflow's page of a trial by its number."""
        row = self._studies.readable_row(study_id)
        runs = self._runs(row)
        return self._reader.view(row), lambda number: self._links.run(
            runs.experiment, runs.of_trials.get(str(number), "")
        )

    def _runs(self, row: StudyRow) -> MlflowRuns:
        try:
            return self._reader.mlflow_runs(row)
        except UnreadableError:  # the study's `unreadable` says why; its trials are shown without links
            return MlflowRuns()


def _state(text: str) -> str:
    if text not in list(TrialState):
        raise UsageError(f"state {text!r}: {did_you_mean(text, list(TrialState))}")
    return text
