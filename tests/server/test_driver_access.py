"""What drivers of other people's code are given of the database."""

from __future__ import annotations

import logging
import stat

import pytest
import sqlalchemy as sa

from dialin.lifecycle import StudyState
from dialin.paths import OutputFolder
from dialin.server.app import create_app
from dialin.server.driver_access import JobsWithOwnRoles, write_private
from dialin.server.job import with_own_access
from dialin.settings import ServerSettings, Settings
from dialin.specification import parse_spec, to_yaml
from dialin.store.submissions import Submissions
from tests.postgresql import postgresql
from tests.server.conftest import SPEC, FakeJobs


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with postgresql(tmp_path_factory.mktemp("database")) as url:
        yield url


def test_a_server_gives_each_driver_a_role_for_its_study(url, tmp_path):
    settings = Settings(tmp_path / "out", tmp_path, allow_code=True, database_url=url)
    jobs = FakeJobs()
    app = create_app(settings, ServerSettings(poll_seconds=3600), jobs)
    parts = app.state.dialin
    first, second = (
        parts.submissions.submit("small", to_yaml(parse_spec(SPEC)), owner="ana", digest="d")[0].study.id for _ in "12"
    )
    parts.reconciler.step()
    assert len(jobs.submitted) == 2
    given = {study: OutputFolder(settings.out).study(study).database_url for study in (first, second)}
    assert {stat.S_IMODE(file.stat().st_mode) for file in given.values()} == {0o600}
    as_driver = with_own_access(Settings(settings.out, tmp_path), first)
    engine = sa.create_engine(as_driver.database)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT id FROM dialin_studies")).scalars().all() == [first]
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            connection.execute(sa.text("SELECT * FROM dialin_tokens"))
    engine.dispose()

    before = given[second].read_text()
    jobs.submitted.clear()
    parts.reconciler.step()
    assert (jobs.submitted, given[second].read_text()) == ([], before)  # a driver at work keeps what it has

    parts.submissions.mark_aborted(first, f"{first}-a1", StudyState.FAILED, "on purpose")
    jobs.end(f"{first}-a1")
    third, _ = parts.submissions.submit("small", to_yaml(parse_spec(SPEC)), owner="ana", digest="d")
    parts.reconciler.step()
    assert third.study.id in {job.removesuffix("-a1") for job in jobs.submitted}
    engine = sa.create_engine(as_driver.database)
    with pytest.raises(sa.exc.OperationalError, match="does not exist"):
        engine.connect()
    engine.dispose()
    parts.close()


def test_where_there_can_be_no_roles_the_log_says_so_once(tmp_path, caplog):
    settings = Settings(tmp_path / "out", tmp_path, allow_code=True)
    settings.out.mkdir()
    with Submissions(settings.database) as submissions:
        jobs = JobsWithOwnRoles(FakeJobs(), settings, submissions)
        with caplog.at_level(logging.WARNING):
            jobs.submit("a-a1", "a")
            jobs.submit("b-a1", "b")
        jobs.close()
    assert OutputFolder(settings.out).study("b").database_url.read_text() == settings.database
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "drivers run other people's code with the server's own access to the database"
    ]


def test_a_planted_link_is_not_written_through(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "file").symlink_to(target)
    write_private(tmp_path / "file", "secret")
    assert target.read_text() == "mine"
    assert (tmp_path / "file").read_text() == "secret"
