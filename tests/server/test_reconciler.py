"""What is wanted against what runs: a database of its own, jobs that a test makes live and die."""

from __future__ import annotations

import os
import random
import re
import socket
from dataclasses import dataclass

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from dialin.errors import ClusterError, FencedError
from dialin.lifecycle import StudyState
from dialin.planning.plan import ClusterShape
from dialin.server.allocation import Demand, fair_shares
from dialin.server.reconciler import (
    CONFIRM_SECONDS,
    LOST_SECONDS,
    PATIENCE_SECONDS,
    STEADY_SECONDS,
    STOP_AGAIN_SECONDS,
    Reconciler,
    SchedulingLimits,
)
from dialin.specification import parse_spec, to_yaml
from dialin.store.engine import database_now
from dialin.store.leases import STALE_SECONDS, acquire
from dialin.store.studies import Studies
from dialin.store.submissions import Submissions
from tests.server.conftest import SPEC, FakeJobs


@dataclass
class World:
    """One database, one cluster, one clock, and what the reconciler said was abandoned."""

    url: str
    submissions: Submissions
    jobs: FakeJobs
    now: float = 0.0

    def reconciler(self, **keywords) -> Reconciler:
        self.abandoned: list[str] = []
        return Reconciler(
            self.submissions,
            self.jobs,
            SchedulingLimits(**keywords),
            on_abandoned=self.abandoned.append,
            clock=lambda: self.now,
        )

    def submit(self, text: str = SPEC, **keywords) -> str:
        self.now += 1.0  # each is younger than the one before
        spec = to_yaml(parse_spec(text))
        return self.submissions.submit("small", spec, owner="ana", digest="d", **keywords)[0].study.id

    def state(self, study_id: str) -> str:
        return self.submissions.get(study_id).study.state.value

    def drive(self, study_id: str) -> None:
        """What a driver does first."""
        job = self.submissions.get(study_id).submission.job
        assert self.submissions.mark_started(study_id, job)
        with Studies(self.url) as studies:
            studies.mark_running(study_id, self.submissions.get(study_id).study.spec)

    def end(self, study_id: str, state: StudyState) -> None:
        with Studies(self.url) as studies:
            studies.end(study_id, state, "", {})


@pytest.fixture
def world(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    world: World | None = None
    with Submissions(url, lambda: world.now if world is not None else 0.0) as submissions:
        world = World(url, submissions, FakeJobs())
        yield world


def test_a_study_is_started_once_and_done_with_once(world):
    study, reconciler = world.submit(), world.reconciler()
    for _ in range(3):
        reconciler.step()
    assert world.jobs.submitted == [f"{study}-a1"]
    world.drive(study)
    reconciler.step()
    world.end(study, StudyState.COMPLETE)
    world.jobs.end(f"{study}-a1", "succeeded")
    for _ in range(3):
        reconciler.step()
    entry = world.submissions.get(study)
    assert (entry.study.state, entry.submission.job) == (StudyState.COMPLETE, "")
    assert world.jobs.submitted == [f"{study}-a1"]
    assert world.abandoned == []


def test_higher_priority_first_and_then_the_older(world):
    world.jobs.cpus = 1.0
    old, urgent, young = world.submit(), world.submit(priority=5), world.submit()
    order = []
    for _ in range(3):
        world.reconciler().step()
        job = world.jobs.submitted[-1]
        study = job.removesuffix("-a1")
        order.append(study)
        world.drive(study)
        world.end(study, StudyState.COMPLETE)
        world.jobs.end(job)
        world.reconciler().step()
    assert order == [urgent, old, young]


def test_no_more_run_than_may_and_than_have_room(world):
    for _ in range(4):
        world.submit()
    world.reconciler(max_running=1).step()
    assert len(world.jobs.submitted) == 1
    world.reconciler().step()
    assert len(world.jobs.submitted) == 2  # two processors, one trial each
    world.jobs.cpus = 8.0
    world.reconciler().step()
    assert len(world.jobs.submitted) == 4


def test_a_study_too_large_for_the_cluster_is_started_alone_for_its_plan_to_say_so(world):
    world.submit(SPEC + "resources: {cpus: 64}\n")
    world.reconciler().step()
    assert len(world.jobs.submitted) == 1


def test_drivers_that_die_before_they_drive_are_told_of_one_by_one(world):
    study, reconciler = world.submit(), world.reconciler()
    for attempt in (1, 2, 3):
        reconciler.step()
        world.submissions.mark_started(study, f"{study}-a{attempt}")  # and no more: the study stays queued
        world.jobs.end(f"{study}-a{attempt}", "exit code 1")
        reconciler.step()
        text = f"its driver ended before the study had (exit code 1); attempt {attempt + 1} follows"
        assert world.submissions.get(study).study.reason == text
        world.now += 60


def test_a_driver_that_died_is_followed_by_another_later_each_time_and_not_for_ever(world):
    study, reconciler = world.submit(), world.reconciler(max_attempts=3)
    for attempt, pause in ((1, 1.0), (2, 2.0)):
        reconciler.step()
        assert world.jobs.submitted[-1] == f"{study}-a{attempt}"
        world.drive(study)
        world.jobs.end(f"{study}-a{attempt}", "exit code 137")
        reconciler.step()
        assert world.state(study) == "queued"
        assert "exit code 137" in world.submissions.get(study).study.reason
        world.now += pause * 0.9
        reconciler.step()
        assert len(world.jobs.submitted) == attempt
        world.now += pause * 0.2
    reconciler.step()
    world.drive(study)
    world.jobs.end(f"{study}-a3", "exit code 137")
    reconciler.step()
    entry = world.submissions.get(study)
    assert entry.study.state is StudyState.FAILED
    assert entry.study.reason == "its driver ended 3 times in a row before the study had; the last time: exit code 137"
    assert world.abandoned == [study]
    reconciler.step()
    assert len(world.jobs.submitted) == 3
    world.submissions.request_resume(study)  # a person may have it go on all the same
    reconciler.step()
    assert world.jobs.submitted[-1] == f"{study}-a4"


def test_a_driver_that_lived_long_counts_as_a_good_one(world):
    study, reconciler = world.submit(), world.reconciler(max_attempts=2)
    for attempt in range(1, 6):
        reconciler.step()
        world.drive(study)
        world.now += STEADY_SECONDS
        world.jobs.end(f"{study}-a{attempt}")
        reconciler.step()
        world.now += 2.0
    assert world.state(study) == "queued"


def test_a_study_whose_driver_said_that_it_failed_is_not_tried_again(world):
    study, reconciler = world.submit(), world.reconciler()
    reconciler.step()
    world.drive(study)
    world.end(study, StudyState.FAILED)
    world.jobs.end(f"{study}-a1")
    reconciler.step()
    reconciler.step()
    assert len(world.jobs.submitted) == 1
    assert world.submissions.get(study).submission.job == ""


def test_a_server_that_died_between_claim_and_start_loses_nothing(world):
    study = world.submit()
    submission = world.submissions.get(study).submission
    assert world.submissions.claim(submission, f"{study}-a1")
    world.reconciler().step()
    assert world.jobs.submitted == []  # whoever claimed it may be about to start it
    world.now += LOST_SECONDS + 1
    world.reconciler().step()
    assert world.jobs.submitted == [f"{study}-a1"]


def test_a_cluster_that_forgot_its_jobs_gets_them_again(world):
    study, reconciler = world.submit(), world.reconciler()
    reconciler.step()
    world.drive(study)
    world.jobs.jobs.clear()
    reconciler.step()
    world.now += 2.0
    reconciler.step()
    assert world.jobs.submitted == [f"{study}-a1", f"{study}-a2"]


def test_nothing_is_started_while_a_driver_lives(world):
    study, reconciler = world.submit(), world.reconciler()
    reconciler.step()
    world.drive(study)
    with acquire(world.url, study):
        world.jobs.end(f"{study}-a1")  # Ray lost sight of it
        reconciler.step()
        assert world.state(study) == "running"
        assert world.submissions.get(study).submission.job == f"{study}-a1"
    reconciler.step()
    assert world.state(study) == "queued"


def frozen(world, study, seconds, job=None):
    """The study's lease is its driver's, which has been silent for so long."""
    holder = acquire(world.url, study, job if job is not None else world.submissions.get(study).submission.job)
    holder._change(beat_at=database_now() - seconds)
    return holder


def test_a_driver_that_says_nothing_while_ray_says_that_it_runs_is_replaced(world):
    study, reconciler = world.submit(), world.reconciler()
    reconciler.step()
    world.drive(study)
    old = frozen(world, study, STALE_SECONDS - 5)
    reconciler.step()
    assert world.jobs.stopped == []
    old._change(beat_at=database_now() - STALE_SECONDS - 1)
    for _ in range(3):
        reconciler.step()
        world.now += CONFIRM_SECONDS
    assert world.jobs.stopped == [f"{study}-a1"]
    assert world.jobs.submitted == [f"{study}-a1"]  # not before the old one is gone
    why = world.submissions.get(study).study.reason
    driver = f"its driver, process {os.getpid()} on {re.escape(socket.gethostname())}"
    assert re.fullmatch(rf"{driver}, said nothing for 2\d s and was ended", why)
    world.jobs.end(f"{study}-a1", "stopped")
    reconciler.step()
    text = f"its driver ended before the study had ({why}); attempt 2 follows"
    assert (world.state(study), world.submissions.get(study).study.reason) == ("queued", text)
    world.now += 2.0
    reconciler.step()
    assert world.jobs.submitted == [f"{study}-a1", f"{study}-a2"]
    world.drive(study)  # the old lease is no trouble of the new job's, which has none yet
    reconciler.step()
    assert world.jobs.stopped == [f"{study}-a1"]
    with acquire(world.url, study, f"{study}-a2"), pytest.raises(FencedError):
        old.check()
    world.end(study, StudyState.COMPLETE)
    (line,) = world.submissions.get(study).study.history()  # it stays readable
    assert line.endswith(text)


def test_a_frozen_driver_that_keeps_the_database_locked_is_stopped_all_the_same(world, monkeypatch):
    study, other, reconciler = world.submit(), world.submit(), world.reconciler()
    reconciler.step()
    world.drive(study)
    world.drive(other)  # younger, so looked at first
    frozen(world, study, STALE_SECONDS + 1)
    reconciler.step()
    world.now += CONFIRM_SECONDS
    world.jobs.end(f"{other}-a1")

    def locked(*_, **__):
        raise sa.exc.OperationalError("BEGIN IMMEDIATE", {}, Exception("database is locked"))

    with monkeypatch.context() as patched:
        patched.setattr(world.submissions, "set_reason", locked)
        patched.setattr(world.submissions, "requeue", locked)
        with pytest.raises(sa.exc.OperationalError):
            reconciler.step()
    assert world.jobs.stopped == [f"{study}-a1"]
    world.jobs.end(f"{study}-a1", "stopped")
    reconciler.step()
    assert "said nothing for 2" in world.submissions.get(study).study.reason


def test_leases_that_look_old_because_the_machine_slept_are_no_reason_to_end_a_driver(world):
    study, reconciler = world.submit(), world.reconciler()
    reconciler.step()
    world.drive(study)
    holder = frozen(world, study, 3600)
    reconciler.step()  # it has just woken up
    world.now += CONFIRM_SECONDS
    holder._change(beat_at=database_now())  # and so has the driver
    reconciler.step()
    holder._change(beat_at=database_now() - 3600)  # the machine sleeps once more
    reconciler.step()
    assert world.jobs.stopped == []


def test_a_driver_that_never_comes_to_drive_is_replaced(world):
    study, reconciler = world.submit(), world.reconciler()
    reconciler.step()
    world.drive(study)
    world.now += PATIENCE_SECONDS - 1
    reconciler.step()
    assert world.jobs.stopped == []
    world.now += 1
    reconciler.step()
    assert world.jobs.stopped == [f"{study}-a1"]
    assert "did not come to drive it within 60 min" in world.submissions.get(study).study.reason
    world.now += STOP_AGAIN_SECONDS
    reconciler.step()
    assert world.jobs.stopped == [f"{study}-a1"] * 2


def test_a_driver_that_has_ended_its_study_has_time_to_end_itself(world):
    study, reconciler = world.submit(), world.reconciler()
    reconciler.step()
    world.drive(study)
    world.now += 10 * PATIENCE_SECONDS
    world.end(study, StudyState.COMPLETE)
    reconciler.step()
    assert world.jobs.stopped == []


def test_the_queue_is_in_the_order_of_turns(world):
    running, young, urgent = world.submit(), world.submit(), world.submit(priority=5)
    world.reconciler(max_running=1).step()
    assert world.submissions.queue() == [running, young]  # the urgent one had its turn
    assert world.submissions.get(urgent).submission.job


def test_a_study_that_is_to_stop_is_stopped_once(world):
    study, reconciler = world.submit(), world.reconciler()
    reconciler.step()
    world.drive(study)
    world.submissions.request_stop(study)
    reconciler.step()
    reconciler.step()
    assert world.jobs.stopped == [f"{study}-a1"]
    world.jobs.end(f"{study}-a1", "stopped")
    reconciler.step()
    entry = world.submissions.get(study)
    assert (entry.study.state, entry.study.reason, entry.submission.job) == (StudyState.INTERRUPTED, "stopped", "")


def test_trouble_with_ray_is_waited_out(world):
    study, reconciler = world.submit(), world.reconciler(poll_seconds=0.01)
    world.jobs.error = ClusterError("Ray does not answer")
    with pytest.raises(ClusterError):
        reconciler.step()
    assert world.state(study) == "queued"
    world.jobs.error = None
    reconciler.step()
    assert len(world.jobs.submitted) == 1


def test_shares_follow_as_studies_come_and_go(world):
    world.jobs.cpus = 8.0
    first, reconciler = world.submit(), world.reconciler()
    reconciler.step()
    assert world.submissions.concurrency_of(first) == 4  # it has no more trials
    large = world.submit(SPEC.replace("trials: 4", "trials: 100"))
    reconciler.step()
    reconciler.step()
    assert (world.submissions.concurrency_of(first), world.submissions.concurrency_of(large)) == (4, 4)
    world.drive(first)
    world.end(first, StudyState.COMPLETE)
    world.jobs.end(f"{first}-a1")
    reconciler.step()
    assert world.submissions.concurrency_of(large) == 8


@given(st.data())
def test_shares_are_fair_and_fit(data):
    shape = ClusterShape(float(data.draw(st.integers(1, 64))), float(data.draw(st.integers(0, 8))))
    demands = {
        f"s{number}": Demand(
            data.draw(st.sampled_from([0.5, 1.0, 2.0])),
            data.draw(st.sampled_from([0.0, 0.5, 1.0])) if shape.gpus else 0.0,
            data.draw(st.integers(1, 50)),
        )
        for number in range(data.draw(st.integers(1, 6)))
    }
    shares = fair_shares(shape, demands)
    assert set(shares) == set(demands)
    assert all(1 <= shares[name] <= demands[name].most for name in demands)
    cpus = sum(shares[name] * demand.cpus for name, demand in demands.items())
    gpus = sum(shares[name] * demand.gpus for name, demand in demands.items())
    if any(share > 1 for share in shares.values()):
        assert cpus <= shape.cpus + 1e-6
        assert gpus <= shape.gpus + 1e-6
    alike = [name for name in demands if demands[name] == demands["s0"]]
    assert max(shares[name] for name in alike) - min(shares[name] for name in alike) <= 1


def test_two_servers_and_random_deaths_start_no_attempt_twice_and_lose_no_study(world):
    """Two reconcilers over one database, jobs that die at random, for a while; then all of it settles."""
    generator = random.Random(5)
    world.jobs.cpus = 3.0
    studies = [world.submit() for _ in range(6)]
    both = [world.reconciler(max_attempts=1000), world.reconciler(max_attempts=1000)]
    for _ in range(300):
        world.now += 1.0
        generator.choice(both).step()
        for job, info in list(world.jobs.jobs.items()):
            study = job.rpartition("-a")[0]
            if info.ended or world.submissions.get(study).submission.job != job:
                continue
            chance = generator.random()
            if chance < 0.4:
                world.drive(study)
            elif chance < 0.5:
                world.jobs.end(job)
            elif chance < 0.55 and world.state(study) == "running":
                world.end(study, StudyState.COMPLETE)
                world.jobs.end(job)
            elif chance < 0.56:
                world.jobs.jobs.clear()
                break
    running = [s for s in studies if world.submissions.get(s).submission.job]
    assert {world.state(study) for study in studies} <= {"queued", "running", "complete"}
    assert len(running) <= 3
    assert [world.state(study) for study in studies].count("complete") >= 4
