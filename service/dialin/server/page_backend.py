"""What the page gets from the server: the same services and models as the HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from dialin import schemas
from dialin.lifecycle import Action
from dialin.server.app_state import AppState
from dialin.server.trial_view import TrialRows
from dialin.store.tokens import Identity
from dialin.web.backend import Caller

T = TypeVar("T")


class PageBackend:
    """Implements `dialin.web.backend.Backend` over the services of an application."""

    def __init__(self, state: AppState) -> None:
        self._state = state

    def caller(self, request: Request) -> Caller:
        """The caller. Raises UnauthorizedError."""
        identity = self._state.auth.admit(request)
        return Caller(identity.name, identity.role)

    def sign_in(self, request: Request, token: str) -> str:
        """Open a session; returns the content of its cookie. Raises UnauthorizedError."""
        return self._state.auth.sign_in(request, token)

    def sign_out(self, request: Request) -> None:
        """Close the session of the request's cookie."""
        self._state.auth.sign_out(request)

    def studies(self, states: Sequence[str], archived: bool, cursor: str | None, limit: int) -> schemas.StudyPage:
        """A page of studies, newest first."""
        return self._state.studies.list_page(states=states, archived=archived, cursor=cursor, limit=limit)

    def study(self, study_id: str) -> schemas.StudyInFull:
        """A study. Raises NotFoundError."""
        return self._state.studies.in_full(study_id)

    def trials(self, study_id: str) -> Sequence[Mapping[str, Any]]:
        """All trials, by number."""
        return self._state.trials.rows(study_id)

    def trial_page(
        self, study_id: str, sort: str, states: Sequence[str], cursor: str | None, limit: int
    ) -> schemas.TrialPage:
        """A page of sorted trials. Raises UsageError."""
        return self._state.trials.list_page(study_id, sort=sort, states=states, limit=limit, cursor=cursor)

    def derived(self, trials: Sequence[Mapping[str, Any]], key: Hashable, make: Callable[[], T]) -> T:
        """What `make` computes from trials, once while they are the same."""
        return trials.derived(key, make) if isinstance(trials, TrialRows) else make()

    def curve(self, study_id: str) -> schemas.BestCurve:
        """How the best value grew."""
        return self._state.studies.curve(study_id)

    def best_config(self, study_id: str, trial: int | None = None) -> str | None:
        """The best configuration as YAML, or that of a trial of the Pareto front; None while there is none."""
        return self._state.studies.find_best_yaml(study_id, trial)

    def log(self, study_id: str, tail: int) -> str:
        """The last lines of the driver's log."""
        return self._state.studies.driver_log(study_id, tail)

    def plan(self, caller: Caller, text: str) -> schemas.Plan:
        """What a specification would do. Raises SpecError."""
        with self._state.auth.limit_planning(caller.name):
            return self._state.submission.plan(text)

    def submit(self, caller: Caller, text: str, key: str, priority: int) -> str:
        """The id of the new study. Raises SpecError."""
        with self._state.auth.limit_planning(caller.name):
            study, _ = self._state.submission.submit(_identity(caller), text, priority=priority, key=key)
        return study.id

    def act(self, caller: Caller, study_id: str, action: Action, change: Mapping[str, str]) -> None:
        """Take an action on a study. Raises ConflictError, ForbiddenError."""
        identity, submission = _identity(caller), self._state.submission
        match action:
            case Action.STOP:
                submission.stop(identity, study_id)
            case Action.RESUME:
                submission.resume(identity, study_id)
            case Action.EXTEND:
                submission.extend(identity, study_id, change.get("trials"), change.get("epochs"))
            case Action.ARCHIVE:
                submission.archive(identity, study_id)


def _identity(caller: Caller) -> Identity:
    return Identity(caller.name, caller.role)
