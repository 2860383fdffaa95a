"""The one table of actions: state by state, role by role, and the text of a refusal."""

from __future__ import annotations

import pytest

from dialin.errors import ConflictError, ForbiddenError
from dialin.lifecycle import (
    ACTIVE,
    ENDED,
    POSSIBLE,
    Action,
    Role,
    StudyState,
    allowed_actions,
    check_possible,
    check_role,
)


@pytest.mark.parametrize(
    ("state", "actions"),
    [
        ("queued", "stop"),
        ("running", "stop"),
        ("complete", "extend archive"),
        ("failed", "resume extend archive"),
        ("interrupted", "resume extend archive"),
    ],
)
def test_a_state_allows_these_actions(state, actions):
    assert " ".join(POSSIBLE[StudyState(state)]) == actions


def test_every_state_is_either_active_or_ended():
    assert {*ACTIVE, *ENDED} == set(StudyState) == set(POSSIBLE)
    assert not set(ACTIVE) & set(ENDED)


@pytest.mark.parametrize(
    ("role", "owned", "archived", "is_allowed"),
    [
        ("viewer", True, False, False),
        ("submitter", True, False, True),
        ("submitter", False, False, False),
        ("admin", False, False, True),
        ("admin", True, False, True),
        ("admin", True, True, False),
    ],
)
@pytest.mark.parametrize("state", StudyState)
def test_a_role_and_the_owner_decide_who_may(state, role, owned, archived, is_allowed):
    allowed = allowed_actions(state, Role(role), owned=owned, archived=archived)
    assert allowed == (POSSIBLE[state] if is_allowed else ())


@pytest.mark.parametrize(
    ("state", "action", "text"),
    [
        ("complete", "stop", "study s-1 is complete; there is nothing to stop"),
        ("complete", "resume", "study s-1 is complete; extend it"),
        ("running", "resume", "study s-1 is running; stop it, or wait until it has ended"),
        ("queued", "extend", "study s-1 is queued; stop it, or wait until it has ended"),
        ("running", "archive", "study s-1 is running; stop it first"),
    ],
)
def test_a_refusal_says_what_can_be_done(state, action, text):
    with pytest.raises(ConflictError) as refused:
        check_possible("s-1", StudyState(state), Action(action))
    assert str(refused.value) == text


@pytest.mark.parametrize("state", StudyState)
@pytest.mark.parametrize("action", Action)
def test_what_is_offered_is_never_refused(state, action):
    if action in POSSIBLE[state]:
        check_possible("s-1", state, action)
    else:
        with pytest.raises(ConflictError, match=f"study s-1 is {state.value}; "):
            check_possible("s-1", state, action)


def test_a_role_that_is_too_low_is_named_with_the_least_one():
    check_role("ana", Role.ADMIN, Role.SUBMITTER, "submit studies")
    with pytest.raises(ForbiddenError, match="ana is a viewer and may not submit studies; a submitter may"):
        check_role("ana", Role.VIEWER, Role.SUBMITTER, "submit studies")
