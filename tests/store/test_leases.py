"""One driver a study: refusals, takeovers and the fence, with real processes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from dialin.errors import ConflictError, FencedError
from dialin.store import database, leases
from dialin.store.leases import Owner, acquire
from tests.conftest import ROOT


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'studies.db'}"


def holder(url, study_id):
    engine = database.connect(url)
    try:
        return leases.holder(engine, study_id)
    finally:
        engine.dispose()


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
        owner = replace(Owner.this_process(), pid=sleeper.pid, started=leases._started(sleeper.pid))
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
        owned_by(url, replace(Owner.this_process(), pid=sleeper.pid, started=1), time.time())
        with acquire(url, "s"):
            pass


@pytest.mark.parametrize(
    "elsewhere", [{"pid_namespace": "4026539999"}, {"boot": "another-boot"}, {"boot": "", "pid_namespace": ""}]
)
def test_an_id_of_another_pid_namespace_or_boot_says_nothing_about_a_process(url, elsewhere):
    """Two containers may have one host name, and the same ids for other processes."""
    with acquire(url, "s"):
        owned_by(url, replace(Owner.this_process(), pid=2**22, started=1, **elsewhere), time.time())
        with pytest.raises(ConflictError, match=f"is being driven by process {2**22}"):
            acquire(url, "s")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root makes PID namespaces")
def test_a_driver_is_not_taken_over_from_another_pid_namespace(url):
    program = (
        "import sys; from dialin.errors import ConflictError; from dialin.store.leases import acquire\n"
        "try: acquire(sys.argv[1], 's')\n"
        "except ConflictError as error: print(error)\n"
        "else: print('taken')"
    )
    with acquire(url, "s") as lease:
        command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", program, url]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert f"is being driven by process {os.getpid()} on {socket.gethostname()}" in done.stdout, done.stderr
        lease.check()


def test_an_owner_that_an_older_version_wrote_is_read_and_an_older_version_reads_ours():
    assert Owner.parse("host 7 123") == Owner("host", 7, 123)
    assert str(Owner("host", 7, 123)) == "host 7 123"
    ours = Owner("host", 7, 123, "boot", "4026531836", "study-a1")
    assert Owner.parse(str(ours)) == ours
    place, pid, started = str(ours).rsplit(" ", 2)  # how it was read before
    assert (int(pid), int(started)) == (7, 123)
    assert place != "host"  # so it is taken for a process elsewhere, and waited for
    longest = Owner("h" * 64, 2**22, 2**50, "b" * 36, "4026531836", "j" * 100)
    assert len(str(longest)) <= 255


@pytest.mark.parametrize("skew", [-3600, 25, 3600])
def test_clocks_of_machines_do_not_matter(url, monkeypatch, skew):
    elsewhere = Owner("elsewhere", 7, 1)
    with acquire(url, "s") as lease:
        owned_by(url, elsewhere, time.time())
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + skew)
        assert holder(url, "s") == elsewhere
        with pytest.raises(ConflictError, match="process 7 on elsewhere"):
            acquire(url, "s")
        lease.check()


def test_a_heartbeat_is_the_databases_time(url, monkeypatch):
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.05)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600)

    def beat_at():
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            found = connection.execute(sa.text("SELECT beat_at FROM dialin_leases")).scalar_one()
        engine.dispose()
        return found

    began = now()
    with acquire(url, "s"):
        assert began - 1 < beat_at() < now() + 1
        owned_by(url, Owner.this_process(), 0.0)
        wait_until(lambda: beat_at() > 0)
        assert began - 1 < beat_at() < now() + 1


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
        wait_until(lambda: holder(url, "s") == Owner.this_process())


def test_a_driver_whose_loop_hangs_falls_silent_until_it_goes_on(url, monkeypatch):
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.05)
    with acquire(url, "s") as lease:
        with lease.watched(timeout_seconds=0.5):
            wait_until(lambda: lease._hangs())
            time.sleep(0.1)  # a beat that was on its way
            owned_by(url, Owner.this_process(), 0.0)
            time.sleep(0.3)  # six beats
            assert holder(url, "s") is None
            lease.record_progress()
            wait_until(lambda: holder(url, "s") is not None)
        time.sleep(0.6)  # what comes after the loop takes its time
        owned_by(url, Owner.this_process(), 0.0)
        wait_until(lambda: holder(url, "s") is not None)


def test_who_is_refused_is_told_what_to_do(url):
    with acquire(url, "s"):
        with pytest.raises(ConflictError, match=r"stop it \(dialin stop s\), or wait until it has ended$"):
            acquire(url, "s")
        owned_by(url, Owner("elsewhere", 7, 1), time.time() - 12)
        with pytest.raises(ConflictError, match=r"last heartbeat was 1\d s ago; try again in \d s$"):
            acquire(url, "s")
