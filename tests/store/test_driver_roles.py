"""A driver that runs somebody's code cannot read or change what belongs to others. Real PostgreSQL."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from dialin.search.storage import opened_storage
from dialin.search.trial_rows import read_study
from dialin.settings import Settings
from dialin.specification import parse_spec, to_yaml
from dialin.store.driver_roles import DriverRoles
from dialin.store.leases import acquire
from dialin.store.submissions import Submissions
from dialin.store.tokens import Tokens
from dialin.study_flow.run import resume_study
from tests.postgresql import postgresql
from tests.server.conftest import SPEC
from tests.store.test_postgresql import progress


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with postgresql(tmp_path_factory.mktemp("database")) as url:
        yield url


@pytest.fixture(scope="module")
def studies(url):
    """Two studies that were submitted, and an admin's token, in a database whose tables are all there."""
    with Submissions(url) as submissions, Tokens(url) as tokens, opened_storage(url):
        tokens.create("ana", "admin")
        with acquire(url, "any"):
            pass
        spec = to_yaml(parse_spec(SPEC))
        return [submissions.submit("small", spec, owner=name, digest="d")[0].study.id for name in ("ana", "ben")]


@pytest.fixture(scope="module")
def roles(url):
    roles = DriverRoles(url)
    yield roles
    roles.close()


def test_a_driver_drives_its_study_by_its_own_role(url, studies, roles, tmp_path):
    assert roles.can_be_made()
    mine = roles.url_for(studies[0])
    assert "dialin_driver_" in mine
    result = resume_study(studies[0], Settings(tmp_path, tmp_path, database_url=mine), progress(), "inline").result
    assert result.state == "complete"
    with opened_storage(url) as storage:
        assert len(read_study(storage, studies[0])) == sum(result.trials.values())
    with Submissions(mine) as submissions:  # what its job says of it
        submissions.set_waiting_for(studies[0], "", "its trials wait for a worker")
        assert submissions.get(studies[0]).study.summary["waiting_for"] == "its trials wait for a worker"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO dialin_tokens (name, role, digest, created_at) VALUES ('me', 'admin', 'x', 0)",
        "SELECT digest FROM dialin_tokens",
        "SELECT digest FROM dialin_sessions",
        "UPDATE dialin_submissions SET owner = 'me'",
        "UPDATE dialin_submissions SET wanted = false",
        "INSERT INTO dialin_driver_roles VALUES ('me', 'x', '{}')",
        "INSERT INTO dialin_leases (study_id, attempt, owner, beat_at) VALUES ('another', 9, '', 0)",
        "INSERT INTO studies (study_name) VALUES ('another')",
        "CREATE TABLE mine (a int); ALTER TABLE studies DISABLE ROW LEVEL SECURITY",
        "SET ROLE dialin",
        "DROP TABLE trials",
    ],
)
def test_what_is_not_its_own_is_refused(studies, roles, statement):
    engine = sa.create_engine(roles.url_for(studies[0]))
    with pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|row-level security|must be owner"):  # noqa: SIM117
        with engine.begin() as connection:
            connection.execute(sa.text(statement))
    engine.dispose()


def test_rows_of_other_studies_are_not_there(url, studies, roles):
    with opened_storage(url) as storage:
        other = storage.create_new_study([storage.get_study_directions(1)[0]], study_name=studies[1])
        storage.create_new_trial(other)
    engine = sa.create_engine(roles.url_for(studies[0]))
    with engine.begin() as connection:
        seen = {
            name: connection.execute(sa.text(f"SELECT count(*) FROM {name}")).scalar()
            for name in ("dialin_studies", "dialin_submissions", "studies")
        }
        assert seen == {"dialin_studies": 1, "dialin_submissions": 1, "studies": 1}
        changed = connection.execute(sa.text("UPDATE dialin_studies SET state = 'failed' WHERE id <> 'x'"))
        assert changed.rowcount == 1
        trials = connection.execute(sa.text("SELECT DISTINCT study_id FROM trials")).scalars().all()
        assert other not in trials
        connection.rollback()
    engine.dispose()


def test_studies_to_learn_from_can_be_read_and_not_changed(studies, roles):
    engine = sa.create_engine(roles.url_for(studies[1], readable=[studies[0]]))
    with engine.begin() as connection:
        names = set(connection.execute(sa.text("SELECT study_name FROM studies")).scalars())
        assert studies[0] in names
        trials = "trial_id IN (SELECT trial_id FROM trials JOIN studies USING (study_id) WHERE study_name = :name)"
        read = sa.text(f"SELECT count(*) FROM trial_params WHERE {trials}")
        assert connection.execute(read, {"name": studies[0]}).scalar() > 0
        change = sa.text(f"UPDATE trial_params SET param_value = 0 WHERE {trials}")
        assert connection.execute(change, {"name": studies[0]}).rowcount == 0
    engine.dispose()


def test_a_new_driver_or_the_end_of_the_study_ends_what_the_old_one_was_given(studies, roles):
    first = roles.url_for(studies[0])
    second = roles.url_for(studies[0])
    assert first != second  # the test's server asks for no password, so that the old one is refused is not seen here
    assert studies[0] in roles.study_ids()
    roles.remove(studies[0])
    roles.remove(studies[0])
    assert studies[0] not in roles.study_ids()
    engine = sa.create_engine(second)
    with pytest.raises(sa.exc.OperationalError, match="does not exist"):
        engine.connect()
    engine.dispose()


def test_a_file_has_no_roles(tmp_path):
    assert not DriverRoles(f"sqlite:///{tmp_path / 'a.db'}").can_be_made()
