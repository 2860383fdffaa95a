"""Everything that is in a database, in PostgreSQL: the same studies come out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from dialin.errors import ConflictError, FencedError
from dialin.search.storage import opened_storage
from dialin.search.trial_rows import read_study
from dialin.settings import Settings
from dialin.specification import parse_spec, to_yaml
from dialin.store.leases import acquire
from dialin.store.submissions import Submissions
from dialin.store.tokens import Tokens
from dialin.study_flow.progress import Progress
from dialin.study_flow.run import extend_study, resume_study, run_study
from tests.postgresql import postgresql
from tests.server.conftest import SPEC


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with postgresql(tmp_path_factory.mktemp("database")) as url:
        yield url


def progress() -> Progress:
    return Progress(Console(quiet=True))


def test_a_study_is_the_same_as_in_a_file(url, tmp_path):
    spec = parse_spec(SPEC)
    in_file, in_server = Settings(tmp_path / "a", tmp_path), Settings(tmp_path / "b", tmp_path, database_url=url)
    one = run_study(spec, in_file, progress(), "inline").result
    other = run_study(spec, in_server, progress(), "inline").result
    assert (one.best, one.trials, one.epochs) == (other.best, other.trials, other.epochs)
    longer = extend_study(other.study_id, in_server, progress(), "inline", trials="+2").result
    assert sum(longer.trials.values()) == 6
    with opened_storage(url) as storage:
        assert [record.number for record in read_study(storage, other.study_id)] == list(range(6))


def test_one_key_makes_one_study_and_one_claim_is_one_servers(url):
    spec = to_yaml(parse_spec(SPEC))

    def send(_: int):
        with Submissions(url) as submissions:
            return submissions.submit("small", spec, owner="ana", digest="d", key="k")

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(20)))
    assert sum(is_new for _, is_new in answers) == 1
    (study_id,) = {entry.study.id for entry, _ in answers}

    def claim(_: int):
        with Submissions(url) as submissions:
            return submissions.claim(answers[0][0].submission, "job")

    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(claim, range(8)))
    assert sum(claimed is not None for claimed in claims) == 1
    with Submissions(url) as submissions:
        assert submissions.get(study_id).submission.job == "job"


def test_one_driver_at_a_time(url):
    with acquire(url, "study"), pytest.raises(ConflictError, match="is being driven by process"):
        acquire(url, "study")
    old = acquire(url, "study")
    with old:
        old._change(beat_at=0.0)
        new = acquire(url, "study")
        with pytest.raises(FencedError):
            old.check()
        new.check()


def test_tokens(url):
    with Tokens(url) as tokens:
        secret = tokens.create("ana", "admin")
        assert tokens.identify(secret).name == "ana"
        tokens.revoke("ana")
        assert tokens.identify(secret) is None


def test_a_study_that_was_submitted_is_driven(url, tmp_path):
    settings = Settings(tmp_path / "out", tmp_path, database_url=url)
    settings.out.mkdir()
    with Submissions(url) as submissions:
        entry, _ = submissions.submit("small", to_yaml(parse_spec(SPEC)), owner="ben", digest="d")
    result = resume_study(entry.study.id, settings, progress(), "inline").result
    assert result.state == "complete"
    with Submissions(url) as submissions:
        assert submissions.get(entry.study.id).study.summary["best"]["value"] == result.best.value
