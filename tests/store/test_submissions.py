"""What a server was asked to do, in the database: every step looks first whether things are as they were."""

from __future__ import annotations

import pytest

from dialin.errors import ConflictError, NotFoundError, RateLimitedError
from dialin.lifecycle import StudyState
from dialin.store.studies import Studies
from dialin.store.submissions import Submissions


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture
def submissions(url):
    with Submissions(url) as submissions:
        yield submissions


def submit(submissions, name="small", **keywords):
    keywords = {"owner": "ana", "digest": "d", **keywords}
    return submissions.submit(name, "spec", **keywords)[0]


def test_a_claim_is_one_servers(url, submissions):
    entry = submit(submissions)
    with Submissions(url) as other:
        mine = submissions.claim(entry.submission, "small-a1")
        assert (mine.job, mine.attempt, mine.began_at) == ("small-a1", 1, None)
        assert other.claim(entry.submission, "small-a1") is None
    assert submissions.mark_started(entry.study.id, "small-a1")
    assert submissions.get(entry.study.id).submission.started_at is not None


def test_a_driver_that_is_not_wanted_is_told(submissions):
    entry = submit(submissions)
    claimed = submissions.claim(entry.submission, "j1")
    assert submissions.requeue(claimed, failures=1, not_before=5.0, reason="it died")
    again = submissions.get(entry.study.id)
    assert (again.study.state, again.study.reason) == (StudyState.QUEUED, "it died")
    assert (again.submission.failures, again.submission.not_before, again.submission.job) == (1, 5.0, "")
    assert not submissions.mark_started(entry.study.id, "j1")
    assert not submissions.requeue(claimed, failures=9, not_before=0.0, reason="late")  # somebody else did it before
    assert submissions.get(entry.study.id).submission.failures == 1


def test_what_a_driver_said_of_its_end_stands(url, submissions):
    entry = submit(submissions)
    claimed = submissions.claim(entry.submission, "j1")
    with Studies(url) as studies:
        studies.end(entry.study.id, StudyState.COMPLETE, "", {"best": {"value": 1.0}})
    submissions.settle(claimed, StudyState.FAILED, "nobody knows")
    settled = submissions.get(entry.study.id)
    assert (settled.study.state, settled.study.reason, settled.submission.job) == (StudyState.COMPLETE, "", "")


def test_a_driver_breaks_off_only_its_own_study(submissions):
    entry = submit(submissions)
    submissions.claim(entry.submission, "j1")
    submissions.mark_aborted(entry.study.id, "another", StudyState.FAILED, "no")
    assert submissions.get(entry.study.id).study.state is StudyState.QUEUED
    submissions.mark_aborted(entry.study.id, "j1", StudyState.INTERRUPTED, "Ray is gone")
    assert submissions.get(entry.study.id).study.reason == "Ray is gone"


def test_stopping_and_going_on(submissions):
    entry = submit(submissions)
    assert submissions.request_stop(entry.study.id).study.state is StudyState.INTERRUPTED  # its turn had not come
    with pytest.raises(ConflictError, match="there is nothing to stop"):
        submissions.request_stop(entry.study.id)
    assert submissions.request_resume(entry.study.id).study.state is StudyState.QUEUED
    with pytest.raises(ConflictError, match="wait until it has ended"):
        submissions.request_resume(entry.study.id)
    claimed = submissions.claim(submissions.get(entry.study.id).submission, "j2")
    assert claimed is not None
    asked = submissions.request_stop(entry.study.id)
    assert (asked.study.state, asked.submission.wanted, asked.submission.job) == (StudyState.QUEUED, False, "j2")
    assert submissions.claim(asked.submission, "j3") is None
    with pytest.raises(NotFoundError):
        submissions.request_resume("nobody")


def test_an_owner_has_so_many_at_a_time(submissions):
    first = submit(submissions, most_active=2)
    submit(submissions, most_active=2)
    with pytest.raises(RateLimitedError, match="ana has 2 studies queued or running"):
        submit(submissions, most_active=2)
    submit(submissions, owner="ben", most_active=2)
    submissions.request_stop(first.study.id)
    submit(submissions, most_active=2)


def test_shares_and_archive(submissions):
    entry = submit(submissions)
    submissions.set_concurrency(entry.submission, 3)
    assert submissions.concurrency_of(entry.study.id) == 3
    assert submissions.concurrency_of("nobody") is None
    with pytest.raises(ConflictError, match="stop it first"):
        submissions.archive(entry.study.id)
    submissions.request_stop(entry.study.id)
    submissions.archive(entry.study.id)
    assert submissions.page() == []
    with pytest.raises(ConflictError, match="is archived"):
        submissions.request_resume(entry.study.id)
