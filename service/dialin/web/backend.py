"""The protocol of what the page needs from the server, so that the page can be tested without a server."""

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
    """The person who requests a page."""

    name: str
    """Name of their token."""
    role: Role
    """Role of their token."""

    def may_submit(self) -> bool:
        """Return whether their role allows submitting studies."""
        return self.role.includes(ROLE_FOR_OWN)


class Backend(Protocol):
    """The server, as the page sees it. Every method raises errors of `dialin.errors`, such as NotFoundError."""

    def caller(self, request: Request) -> Caller:
        """Return who sent the request, by its header or its cookie. Raises UnauthorizedError."""

    def sign_in(self, request: Request, token: str) -> str:
        """Open a session; returns the content of its cookie. Raises UnauthorizedError for an unknown token."""

    def sign_out(self, request: Request) -> None:
        """Close the session of the request's cookie."""

    def studies(self, states: Sequence[str], archived: bool, cursor: str | None, limit: int) -> StudyPage:
        """Return a page of studies, newest first. `states`: only studies in these states; empty: in all."""

    def study(self, study_id: str) -> StudyInFull:
        """Return a study. Raises NotFoundError."""

    def trials(self, study_id: str) -> Sequence[Data]:
        """Return all trials by number, as mappings with the fields of `schemas.Trial`. Raises UnreadableError."""

    def trial_page(self, study_id: str, sort: str, states: Sequence[str], cursor: str | None, limit: int) -> TrialPage:
        """Return a page of trials, sorted by a field, in reverse with a dash before its name. Raises UsageError."""

    def derived(self, trials: Sequence[Data], key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` computes from the result of `trials`, cached by key until the trials change."""

    def curve(self, study_id: str) -> BestCurve:
        """Return how the best value improved. Raises UnreadableError."""

    def best_config(self, study_id: str, trial: int | None = None) -> str | None:
        """Return the best configuration as YAML, or that of a trial of the Pareto front; None while there is none.
        Raises UnreadableError."""

    def log(self, study_id: str, tail: int) -> str:
        """Return the last `tail` lines of the driver's log; empty while there is none."""

    def plan(self, caller: Caller, text: str) -> Plan:
        """Return what a specification would do. Raises SpecError."""

    def submit(self, caller: Caller, text: str, key: str, priority: int) -> str:
        """Submit a study; return its id, or that of the study that was submitted with this key before.

        Raises SpecError.
        """

    def act(self, caller: Caller, study_id: str, action: Action, change: Mapping[str, str]) -> None:
        """Take an action; `change`: trials and epochs of an extension. Raises ConflictError, ForbiddenError."""
