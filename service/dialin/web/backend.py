"""What the page needs from the service behind it. Data has the shapes of the HTTP API, so the same names."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from starlette.requests import Request

from dialin.lifecycle import ROLE_FOR_OWN, Role

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
    """Every method raises errors of the service's tree: UnauthorizedError, NotFoundError, SpecError, ConflictError."""

    def caller(self, request: Request) -> Caller:
        """Who sent the request, by header or cookie. Raises UnauthorizedError."""

    def sign_in(self, request: Request, token: str) -> str:
        """What the cookie shall hold. Raises UnauthorizedError for a token that is not known."""

    def sign_out(self, request: Request) -> None:
        """What the request's cookie holds is worth nothing any more."""

    def studies(self, states: Sequence[str], archived: bool, cursor: str | None, limit: int) -> Data:
        """`{"studies": [...], "next": cursor | None}`, the newest first."""

    def study(self, study_id: str) -> Data:
        """A study with its specification. Raises NotFoundError."""

    def trials(self, study_id: str) -> Sequence[Data]:
        """All trials, by number. Their fields are worked out when they are asked for."""

    def trial_page(self, study_id: str, sort: str, states: Sequence[str], cursor: str | None, limit: int) -> Data:
        """`{"trials": [...], "next": cursor | None}` in an order: a field's name, with a dash before it for downwards.
        Raises UsageError."""

    def derived(self, trials: Sequence[Data], key: Hashable, make: Callable[[], T]) -> T:
        """What `make` makes of what `trials` gave: made once for each key, as long as the trials are the same."""

    def curve(self, study_id: str) -> Data:
        """The best value so far: `{"metric", "mode", "points"}`."""

    def best_config(self, study_id: str) -> str | None:
        """The best configuration as YAML; None while there is none."""

    def log(self, study_id: str, tail: int) -> str:
        """The last lines of the driver's log; empty when there is none yet."""

    def plan(self, caller: Caller, text: str) -> Data:
        """What a specification would do. Raises SpecError."""

    def submit(self, caller: Caller, text: str, key: str, priority: int) -> str:
        """The id of the new study, or of the one that this key has made already. Raises SpecError."""

    def act(self, caller: Caller, study_id: str, action: str, change: Mapping[str, str]) -> None:
        """Take an `Action`; `change`: trials and epochs of an extension. Raises ConflictError, ForbiddenError."""
