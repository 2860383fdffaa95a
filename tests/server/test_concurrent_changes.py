"""Many who change one study at the same moment: whoever is told that it was done is not overwritten by another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from dialin.errors import ConflictError, RateLimitedError
from dialin.lifecycle import Role, StudyState
from dialin.planning.plan import ClusterShape
from dialin.server.services.bundles import BundleService
from dialin.server.services.mlflow_links import MlflowLinks
from dialin.server.services.studies import StudyService
from dialin.server.services.submission import SpecChecker, SubmissionService
from dialin.server.study_reader import SharedStudyReader
from dialin.settings import ServerSettings, Settings
from dialin.specification import parse_spec
from dialin.store.submissions import Submissions
from dialin.store.tokens import Identity
from tests.postgresql import postgresql
from tests.server.conftest import SPEC

ADMIN = Identity("ana", Role.ADMIN)
ROUNDS = 8  # a race that is lost in one of four is seen nine times in ten


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("database")
    if request.param == "sqlite":
        yield f"sqlite:///{folder / 'studies.db'}"
        return
    with postgresql(folder) as url:
        yield url


@pytest.fixture
def submissions(url):
    with Submissions(url) as submissions:
        yield submissions


@pytest.fixture
def service(url, submissions, tmp_path):
    settings = Settings(tmp_path / "out", tmp_path / "data", database_url=url)
    limits = ServerSettings(max_studies=3)
    reader, bundles = SharedStudyReader(settings), BundleService(settings, limits)
    studies = StudyService(settings, submissions, reader, MlflowLinks(settings))
    checker = SpecChecker(settings, limits, bundles)
    yield SubmissionService(
        submissions, studies, checker, cluster_shape=lambda: ClusterShape(2.0), max_studies=limits.max_studies
    )
    reader.close()
    bundles.close()


def interrupted(submissions, owner="ana") -> str:
    entry, _ = submissions.submit("small", SPEC, owner=owner, digest="d")
    return submissions.request_stop(entry.study.id).study.id


def at_once(count: int, action: Callable[[], object]) -> tuple[int, list[str]]:
    """How many of so many threads had their way, and what the others were told."""
    barrier = threading.Barrier(count)

    def act(_: int) -> str | None:
        barrier.wait()
        try:
            action()
        except (ConflictError, RateLimitedError) as error:
            return str(error)
        return None

    with ThreadPoolExecutor(count) as pool:
        told = list(pool.map(act, range(count)))
    return told.count(None), [text for text in told if text is not None]


def test_of_six_extensions_at_once_each_that_is_taken_counts(service, submissions):
    for _ in range(ROUNDS):
        study = interrupted(submissions)
        taken, refused = at_once(6, lambda: service.extend(ADMIN, study, "+4", None))  # noqa: B023
        budget = parse_spec(submissions.get(study).study.spec).budget
        assert taken >= 1
        assert budget.trials == 4 + 4 * taken
        for text in refused:
            assert text.startswith(f"study {study} ")
            assert "check its state and try again" in text or "stop it, or wait until it has ended" in text
        submissions.request_stop(study)


def test_of_ten_resumes_at_once_one_is_taken(service, submissions):
    for _ in range(ROUNDS):
        study = interrupted(submissions)
        taken, refused = at_once(10, lambda: service.resume(ADMIN, study))  # noqa: B023
        assert (taken, len(refused)) == (1, 9)
        assert set(refused) == {f"study {study} is queued; stop it, or wait until it has ended"}
        submissions.request_stop(study)


def test_a_quota_holds_for_submissions_at_once(service, submissions):
    for number in range(ROUNDS):
        who = Identity(f"ben-{number}", Role.SUBMITTER)
        taken, refused = at_once(8, lambda: service.submit(who, SPEC))  # noqa: B023
        assert taken == submissions.active_of(who.name) == 3
        assert all("has 3 studies queued or running" in text for text in refused)


def test_a_stop_and_a_claim_at_once_leave_no_job_of_a_study_that_has_ended(submissions):
    for _ in range(ROUNDS):
        entry, _ = submissions.submit("small", SPEC, owner="cid", digest="d")
        first = threading.Lock()

        def stop_or_claim():
            if first.acquire(blocking=False):  # noqa: B023
                submissions.request_stop(entry.study.id)  # noqa: B023
            else:
                submissions.claim(entry.submission, "job")  # noqa: B023

        at_once(2, stop_or_claim)
        after = submissions.get(entry.study.id)
        assert not after.submission.wanted
        assert (after.study.state is StudyState.INTERRUPTED) == (after.submission.job == "")


def test_a_resume_outlives_a_servers_note_of_the_end_before_it(submissions):
    entry, _ = submissions.submit("small", SPEC, owner="dan", digest="d")
    submissions.claim(entry.submission, "job")
    read = submissions.request_stop(entry.study.id).submission  # a server looks, and sees that it is to stop
    submissions.mark_aborted(entry.study.id, "job", StudyState.INTERRUPTED, "stopped")
    submissions.request_resume(entry.study.id)
    assert not submissions.settle(read, StudyState.INTERRUPTED, "stopped")
    after = submissions.get(entry.study.id)
    assert (after.study.state, after.submission.wanted) == (StudyState.QUEUED, True)
