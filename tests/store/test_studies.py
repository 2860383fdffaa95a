from __future__ import annotations

import subprocess
import sys

import pytest

from dialin.errors import NotFoundError
from dialin.lifecycle import StudyState
from dialin.store.studies import Studies, new_id
from tests.conftest import ROOT


@pytest.fixture
def studies(tmp_path):
    store = Studies(f"sqlite:///{tmp_path / 'studies.db'}")
    yield store
    store.close()


def test_a_study_from_birth_to_end(studies):
    row = studies.create("digits", "name: digits")
    assert (row.state, row.ended_at) == (StudyState.RUNNING, None)
    studies.end(row.id, StudyState.COMPLETE, "all done", {"best": {"value": 0.9}})
    found = studies.find(row.id)
    assert (found.state, found.reason, found.spec) == (StudyState.COMPLETE, "all done", "name: digits")
    assert found.summary == {"best": {"value": 0.9}}
    assert found.ended_at >= found.created_at


def test_finding_by_id_name_and_last(studies):
    first, second = studies.create("a", ""), studies.create("a", "")
    other = studies.create("b", "")
    assert studies.find(first.id).id == first.id
    assert studies.find("a").id == second.id
    assert studies.find("last").id == other.id
    assert [row.id for row in studies.list()] == [other.id, second.id, first.id]


def test_an_unknown_study_names_the_nearest(studies):
    with pytest.raises(NotFoundError, match="there is none here yet"):
        studies.find("x")
    row = studies.create("digits", "")
    with pytest.raises(NotFoundError, match=f"did you mean '{row.id}'"):
        studies.find(row.id[:-1] + "0")
    with pytest.raises(NotFoundError):
        studies.end("nothing", StudyState.FAILED, "", {})


def test_a_second_store_sees_the_same(studies, tmp_path):
    row = studies.create("a", "")
    other = Studies(f"sqlite:///{tmp_path / 'studies.db'}")
    assert other.find(row.id) == row
    other.close()


def test_ids_are_plain_words():
    ids = {new_id("fashion_mnist") for _ in range(500)}
    assert len(ids) == 500
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in ids)


def test_many_processes_may_be_the_first(tmp_path):
    """Each makes the tables that are not there, at the same moment."""
    program = "import sys; from dialin.store.database import connect; connect(sys.argv[1])"
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    started = [
        subprocess.Popen([sys.executable, "-c", program, url], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    errors = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 6, errors
