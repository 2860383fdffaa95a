"""The states of studies and trials, and what may be done to a study in each of them.

Every part that has to know this asks here: the store before it changes a row, the server before it accepts a request,
the page for its buttons, the client and the command line for their checks and help texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from dialin.errors import ConflictError, ForbiddenError


class StudyState(StrEnum):
    """The state of a study."""

    QUEUED = "queued"  # waits on a server until the cluster has room for it
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # stopped before its end; it can be resumed


class TrialState(StrEnum):
    """The state of a trial. The last four are final: a trial that has ended never changes again."""

    WAITING = "waiting"  # paused at a rung, or left behind when its study was interrupted; it may be continued
    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"  # by early stopping, or with its study
    DIVERGED = "diverged"
    FAILED = "failed"


class Role(StrEnum):
    """What the holder of a token may do, from least to most."""

    VIEWER = "viewer"  # read everything
    SUBMITTER = "submitter"  # also submit studies, and change their own
    ADMIN = "admin"  # also change the studies of others

    def includes(self, other: Role) -> bool:
        """Whether this role may do everything that the other one may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


class Action(StrEnum):
    """What can be asked of a study that exists."""

    STOP = "stop"
    RESUME = "resume"
    EXTEND = "extend"
    ARCHIVE = "archive"


ACTIVE = (StudyState.QUEUED, StudyState.RUNNING)
ENDED = (StudyState.COMPLETE, StudyState.FAILED, StudyState.INTERRUPTED)
TRIAL_ENDED = (TrialState.COMPLETE, TrialState.STOPPED, TrialState.DIVERGED, TrialState.FAILED)

# The actions that are possible in each state, in the order in which they are offered.
POSSIBLE: Mapping[StudyState, tuple[Action, ...]] = {
    StudyState.QUEUED: (Action.STOP,),
    StudyState.RUNNING: (Action.STOP,),
    StudyState.COMPLETE: (Action.EXTEND, Action.ARCHIVE),
    StudyState.FAILED: (Action.RESUME, Action.EXTEND, Action.ARCHIVE),
    StudyState.INTERRUPTED: (Action.RESUME, Action.EXTEND, Action.ARCHIVE),
}
# The least role that may take them: on the caller's own studies, and on those of others.
ROLE_FOR_OWN, ROLE_FOR_OTHERS = Role.SUBMITTER, Role.ADMIN


def allowed_actions(state: StudyState, role: Role, *, owned: bool, archived: bool = False) -> tuple[Action, ...]:
    """The actions that a caller may take on a study now.

    `owned`: the caller submitted the study. An archived study takes no action.
    """
    least = ROLE_FOR_OWN if owned else ROLE_FOR_OTHERS
    return POSSIBLE[state] if role.includes(least) and not archived else ()


def check_role(name: str, role: Role, least: Role, what: str) -> None:
    """Raise ForbiddenError unless the caller `name` has at least the role `least`, which `what` needs."""
    if not role.includes(least):
        raise ForbiddenError(f"{name} is a {role.value} and may not {what}; a {least.value} may")


def check_possible(study_id: str, state: StudyState, action: Action) -> None:
    """Raise ConflictError, which says what can be done instead, where the state of a study does not allow an action."""
    if action in POSSIBLE[state]:
        return
    if action is Action.STOP:
        advice = "there is nothing to stop"
    elif action is Action.ARCHIVE:
        advice = "stop it first"
    elif state is StudyState.COMPLETE:
        advice = "extend it"
    else:
        advice = "stop it, or wait until it has ended"
    raise ConflictError(f"study {study_id} is {state.value}; {advice}")
