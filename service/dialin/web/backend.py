"""What the page needs from the server, as a protocol: the page can be built and tested without one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from starlette.requests import Request

from dialin.lifecycle import ROLE_FOR_OWN, Action, Role
from dialin.schemas import BestCurve, Plan, StudyInFull, StudyPage, TrialPage

T = TypeVar("T")
Data = Mapping[str, Any]


@dataclass(frozen=True)
class Caller:
    """The person who asks for a page."""

    name: str
    role: Role

    def may_submit(self) -> bool:
        """Whether their role lets them submit studies."""
        return self.role.includes(ROLE_FOR_OWN)


class Backend(Protocol):
    """Every method raises errors of `dialin.errors`, such as UnauthorizedError and NotFoundError."""

    def caller(self, request: Request) -> Caller:
        """Who sent the request, by its header or its cookie. Raises UnauthorizedError."""

    def sign_in(self, request: Request, token: str) -> str:
        """Open a session; returns the content of its cookie. Raises UnauthorizedError for an unknown token."""

    def sign_out(self, request: Request) -> None:
        """Close the session of the request's cookie."""

    def studies(self, states: Sequence[str], archived: bool, cursor: str | None, limit: int) -> StudyPage:
        """A page of studies, newest first. `states`: only studies in these; empty: all."""

    def study(self, study_id: str) -> StudyInFull:
        """A study. Raises NotFoundError."""

    def trials(self, study_id: str) -> Sequence[Data]:
        """All trials by number, as mappings with the fields of `schemas.Trial`. Raises UnreadableError."""

    def trial_page(self, study_id: str, sort: str, states: Sequence[str], cursor: str | None, limit: int) -> TrialPage:
        """A page of trials, sorted by a field; with a dash before it in reverse. Raises UsageError."""

    def derived(self, trials: Sequence[Data], key: Hashable, make: Callable[[], T]) -> T:
        """What `make` computes from the result of `trials`: once for each key, as long as the trials are the same."""

    def curve(self, study_id: str) -> BestCurve:
        """How the best value grew. Raises UnreadableError."""

    def best_config(self, study_id: str) -> str | None:
        """The best configuration as YAML; None while there is none. Raises UnreadableError."""

    def log(self, study_id: str, tail: int) -> str:
        """The last lines of the driver's log; empty while there is none."""

    def plan(self, caller: Caller, text: str) -> Plan:
        """What a specification would do. Raises SpecError."""

    def submit(self, caller: Caller, text: str, key: str, priority: int) -> str:
        """The id of the new study, or of the one that was submitted with this key before. Raises SpecError."""

    def act(self, caller: Caller, study_id: str, action: Action, change: Mapping[str, str]) -> None:
        """Take an action; `change`: trials and epochs of an extension. Raises ConflictError, ForbiddenError."""
