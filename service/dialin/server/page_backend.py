"""What the page gets from the server: the same as the HTTP API, in the same shapes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from dialin.errors import NoResultError
from dialin.server.auth import Gate
from dialin.server.studies import StudyService
from dialin.server.trial_view import TrialRows
from dialin.store.tokens import Identity
from dialin.web.backend import Caller

T = TypeVar("T")


class PageBackend:
    """Implements `dialin.web.backend.Backend`."""

    def __init__(self, service: StudyService, gate: Gate) -> None:
        self._service, self._gate = service, gate

    def caller(self, request: Request) -> Caller:
        who = self._gate.admit(request)
        return Caller(who.name, who.role)

    def sign_in(self, request: Request, token: str) -> str:
        return self._gate.sign_in(request, token)

    def sign_out(self, request: Request) -> None:
        self._gate.sign_out(request)

    def studies(self, states: Sequence[str], archived: bool, cursor: str | None, limit: int) -> Mapping[str, Any]:
        return self._service.page(states=states, archived=archived, cursor=cursor, limit=limit)

    def study(self, study_id: str) -> Mapping[str, Any]:
        return self._service.study(study_id)

    def trials(self, study_id: str) -> Sequence[Mapping[str, Any]]:
        return self._service.trial_rows(study_id)

    def trial_page(
        self, study_id: str, sort: str, states: Sequence[str], cursor: str | None, limit: int
    ) -> Mapping[str, Any]:
        return self._service.trials(study_id, sort=sort, states=states, limit=limit, cursor=cursor)

    def derived(self, trials: Sequence[Mapping[str, Any]], key: Hashable, make: Callable[[], T]) -> T:
        return trials.derived(key, make) if isinstance(trials, TrialRows) else make()

    def curve(self, study_id: str) -> Mapping[str, Any]:
        return self._service.curve(study_id)

    def best_config(self, study_id: str) -> str | None:
        try:
            return self._service.best_yaml(study_id)
        except NoResultError:
            return None

    def log(self, study_id: str, tail: int) -> str:
        return self._service.log(study_id, tail)

    def plan(self, caller: Caller, text: str) -> Mapping[str, Any]:
        with self._gate.planning(caller.name):
            return self._service.plan(text)

    def submit(self, caller: Caller, text: str, key: str, priority: int) -> str:
        with self._gate.planning(caller.name):
            study, _ = self._service.submit(_identity(caller), text, priority=priority, key=key)
        return str(study["id"])

    def act(self, caller: Caller, study_id: str, action: str, change: Mapping[str, str]) -> None:
        if action == "archive":
            self._service.archive(_identity(caller), study_id)
        else:
            self._service.act(_identity(caller), study_id, action, change)


def _identity(caller: Caller) -> Identity:
    return Identity(caller.name, caller.role)
