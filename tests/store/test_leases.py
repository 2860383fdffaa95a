"""One driver a study: refusals, takeovers and the fence, with real processes."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import sqlalchemy as sa

from service.errors import ConflictError, FencedError
from service.store import leases
from service.store.leases import Owner, acquire, holder


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def owned_by(url, owner, beat_at):
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE dialin_leases SET owner = :o, beat_at = :b"), {"o": str(owner), "b": beat_at}
        )
    engine.dispose()


def test_a_second_driver_is_refused_with_the_owner_named(url):
    me = Owner.this_process()
    with acquire(url, "s"):
        assert holder(url, "s") == me
        with pytest.raises(ConflictError, match=f"is being driven by process {me.pid} on {me.host}"):
            acquire(url, "s")
    assert holder(url, "s") is None


def test_another_study_is_another_lease(url):
    with acquire(url, "one"), acquire(url, "two"):
        pass


def test_a_study_whose_process_is_gone_is_taken_over_at_once(url, sleeper):
    with acquire(url, "s") as first:
        owner = Owner(Owner.this_process().host, sleeper.pid, leases._started(sleeper.pid))
        owned_by(url, owner, time.time())
        with pytest.raises(ConflictError, match=str(sleeper.pid)):
            acquire(url, "s")
        sleeper.kill()
        sleeper.wait()
        with acquire(url, "s") as second:
            assert second.attempt == first.attempt + 1
            second.check()


def test_an_id_that_came_again_is_another_process(url, sleeper):
    with acquire(url, "s"):
        owned_by(url, Owner(Owner.this_process().host, sleeper.pid, 1), time.time())
        with acquire(url, "s"):
            pass


def test_a_silent_driver_elsewhere_is_replaced_and_fenced(url):
    with acquire(url, "s") as old:
        old.check()
        owned_by(url, Owner("elsewhere", 7, 1), time.time())
        with pytest.raises(ConflictError, match="process 7 on elsewhere"):
            acquire(url, "s")
        owned_by(url, Owner("elsewhere", 7, 1), time.time() - leases.STALE_SECONDS - 1)
        with acquire(url, "s") as new:
            new.check()
            with pytest.raises(FencedError, match=r"study s was taken over by process \d+ on .*; this driver writes"):
                old.check()


def test_it_says_that_it_lives(url, monkeypatch):
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.05)
    with acquire(url, "s"):
        owned_by(url, Owner.this_process(), 0.0)
        deadline = time.monotonic() + 30
        while holder(url, "s") is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert holder(url, "s") == Owner.this_process()
