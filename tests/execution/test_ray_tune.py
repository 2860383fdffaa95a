"""Ray for real: a cluster of this process's own, trials in actors, failures and decisions passed on."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dialin.errors import ClusterError, FencedError
from dialin.execution.local_cluster import local_cluster, local_shape
from dialin.execution.trial_run import TrialPlan
from dialin.planning.plan import ClusterShape, Resources
from dialin.search.decision import Decision
from dialin.search.records import Trial
from tests import others
from tests.conftest import ROOT
from tests.strangers import NEEDS_ROOT, as_nobody, reached_by_nobody

pytestmark = others.RAY


class Pids:
    """An objective whose metric tells which process trained it; trial 2 raises, trial 3 dies."""

    def prepare(self, progress): ...

    def start(self, params, seed, resources):
        return PidsRun(params)


class PidsRun:
    def __init__(self, params):
        self.params, self.count = params, 0

    def epoch(self):
        self.count += 1
        if self.params["fate"] == "raise":
            raise ValueError("on purpose")
        if self.params["fate"] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.params["fate"] == "hang":
            time.sleep(10_000)
        if self.params["fate"] == "hang in native code":
            ctypes.PyDLL(None).sleep(10_000)  # keeps Python's lock
        if self.params["fate"] == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        threads = float(os.environ.get("OMP_NUM_THREADS", "0"))
        return {"val_accuracy": self.count / 10, "pid": float(os.getpid()), "threads": threads}

    def save(self, folder: Path):
        (folder / "count").write_text(str(self.count))

    def load(self, folder: Path):
        self.count = int((folder / "count").read_text())

    def test(self):
        return {"accuracy": self.count / 10, "pid": float(os.getpid())}

    def findings(self):
        return []

    def close(self): ...


class Recording:
    """A driver that hands out trials of given fates, stops each after three epochs, and remembers."""

    over = None

    def __init__(self, fates):
        self.waiting = [Trial(number, {"fate": fate}, 1) for number, fate in enumerate(fates)]
        self.reports, self.failures, self.live, self.most_live, self.saved = {}, {}, set(), 0, {}
        self.losses = {}
        self.lock = threading.Lock()  # as a real one has: it is not to be pickled
        self.patience, self.since, self.cut_off_at, self.loops = None, {}, None, 0

    def report_progress(self):
        self.loops += 1

    def report_working(self, trial):
        self.since.setdefault(trial.number, (trial, time.monotonic()))

    def find_overdue(self):
        if self.patience is None:
            return []
        late = [trial for trial, since in self.since.values() if time.monotonic() - since > self.patience]
        return [(trial, "too late") for trial in late if trial.number in self.live]

    @property
    def is_cut_off(self):
        return self.cut_off_at is not None and time.monotonic() > self.cut_off_at

    def ask(self):
        if not self.waiting:
            return None
        trial = self.waiting.pop(0)
        self.live.add(trial.number)
        self.most_live = max(self.most_live, len(self.live))
        return trial

    def report(self, trial, reports):
        self.reports.setdefault(trial.number, []).extend((report.epoch, report.metrics) for report in reports)
        self.saved[trial.number] = reports[-1].checkpoint
        self.since[trial.number] = trial, time.monotonic()
        if reports[-1].epoch == 3:
            self.live.discard(trial.number)
        return Decision("complete" if reports[-1].epoch == 3 else "continue", "all_epochs")

    @property
    def finished(self):
        return self.is_cut_off or (not self.waiting and not self.live)

    def fail(self, trial, traceback):
        self.live.discard(trial.number)
        self.failures[trial.number] = traceback

    def report_lost_worker(self, trial, reason):
        self.live.discard(trial.number)
        self.losses[trial.number] = reason
        self.waiting.append(Trial(trial.number, {"fate": "fine"}, 1))


@pytest.fixture(scope="module")
def cluster():
    before = dict(os.environ)
    with local_cluster(ClusterShape(cpus=2)):
        import ray

        yield ray
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def trial_plan(tmp_path):
    return TrialPlan(Pids(), Resources(), 3, "val_accuracy", True, None, tmp_path / "checkpoints")


def test_trials_run_in_reused_actors_beside_each_other(cluster, trial_plan, tmp_path):
    from dialin.execution.ray_tune import evaluate_on_ray, run_on_ray

    driver = Recording(["fine"] * 8)
    run_on_ray(driver, trial_plan, 2, tmp_path / "ray")
    assert {number: [epoch for epoch, _ in reports] for number, reports in driver.reports.items()} == {
        number: [1, 2, 3] for number in range(8)
    }
    assert driver.most_live == 2
    pids = {metrics["pid"] for reports in driver.reports.values() for _, metrics in reports}
    assert len(pids) <= 3  # eight trials, and not eight processes
    assert os.getpid() not in pids
    assert {metrics["threads"] for reports in driver.reports.values() for _, metrics in reports} == {1.0}
    tested = evaluate_on_ray(trial_plan, Trial(5, {"fate": "fine"}, 1), driver.saved[5])
    assert tested["accuracy"] == 0.3
    assert tested["pid"] != os.getpid()


def test_a_trial_that_raises_fails_alone_and_one_whose_worker_dies_goes_on(cluster, trial_plan, tmp_path):
    from dialin.execution.ray_tune import run_on_ray

    driver = Recording(["fine", "raise", "fine", "die", "fine", "fine"])
    run_on_ray(driver, trial_plan, 2, tmp_path / "ray")
    assert sorted(driver.reports) == [0, 2, 3, 4, 5]
    assert sorted(driver.failures) == [1]
    assert driver.failures[1].strip().endswith("ValueError: on purpose")
    assert list(driver.losses) == [3]
    assert "ActorDiedError" in driver.losses[3]


def test_a_trial_that_hangs_is_ended_with_its_worker_and_the_others_go_on(cluster, trial_plan, tmp_path):
    from dialin.execution.ray_tune import run_on_ray

    hangs = {1: "hang", 2: "hang in native code", 4: "freeze"}
    driver = Recording([hangs.get(number, "fine") for number in range(8)])
    driver.patience = 3.0
    run_on_ray(driver, trial_plan, 2, tmp_path / "ray")
    assert {number: len(reports) for number, reports in driver.reports.items()} == dict.fromkeys((0, 3, 5, 6, 7), 3)
    assert driver.failures == dict.fromkeys(hangs, "too late; its worker was killed")
    assert driver.losses == {}
    assert driver.loops > 0
    wait_for_processors(cluster, 2)


def test_a_study_that_is_over_ends_though_its_trials_hang_or_wait(cluster, trial_plan, tmp_path):
    from dialin.execution.ray_tune import run_on_ray

    driver = Recording(["hang", "hang in native code", "fine"])
    driver.cut_off_at = time.monotonic() + 4.0
    run_on_ray(driver, trial_plan, 3, tmp_path / "ray")  # for the third there is no processor
    assert (driver.reports, driver.failures, driver.losses) == ({}, {}, {})
    wait_for_processors(cluster, 2)


def wait_for_processors(ray, count):
    """Nobody holds a place any more."""
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < count:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.1)


def test_an_error_of_the_driver_ends_the_run_and_is_raised(cluster, trial_plan, tmp_path):
    from dialin.execution.ray_tune import run_on_ray

    class Broken(Recording):
        def report(self, trial, reports):
            raise FencedError("taken over")

    driver = Broken(["fine"] * 4)
    with pytest.raises(FencedError, match="taken over"):
        run_on_ray(driver, trial_plan, 2, tmp_path / "ray")
    assert driver.failures == {}


def test_the_cluster_is_ours_alone(cluster):
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert (
        not (Path.home() / ".ray" / "auth_token").exists()
        or os.environ["RAY_AUTH_TOKEN"] not in (Path.home() / ".ray" / "auth_token").read_text()
    )


@NEEDS_ROOT
def test_nobody_else_can_enter_its_folder(cluster):
    (sockets,) = {Path(node["RayletSocketName"]).parent for node in cluster.nodes()}
    private = next(parent for parent in sockets.parents if parent.name.startswith("dialin-ray-"))
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert sockets.parents[1].parent == private  # Ray's own folder is the one inside
    assert reached_by_nobody(private) == reached_by_nobody(private, "-writable") == []
    assert as_nobody("ls", str(sockets)).returncode != 0


@pytest.mark.parametrize(
    "error", [RuntimeError("timed out after 30 s\nand more"), ConnectionError("timed out after 30 s")]
)
def test_a_ray_that_does_not_start_is_one_line_and_leaves_no_folder(monkeypatch, error):
    import ray

    def fails(**_):
        raise error

    before = set(Path("/tmp").glob(f"dialin-ray-{os.getpid()}-*"))
    monkeypatch.setattr(ray, "init", fails)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # the cluster of the other tests is
    says = "^Ray did not start on this machine: timed out after 30 s$"
    with pytest.raises(ClusterError, match=says), local_cluster(ClusterShape(cpus=1)):
        raise AssertionError("it has not started")
    assert set(Path("/tmp").glob(f"dialin-ray-{os.getpid()}-*")) == before


def test_the_shape_of_this_machine(monkeypatch):
    assert local_shape().cpus == len(os.sched_getaffinity(0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert local_shape().gpus == 0


def test_a_script_that_has_imported_ray_before_gets_its_cluster_too():
    script = (
        "import ray\n"
        "from dialin.execution.local_cluster import local_cluster\n"
        "from dialin.planning.plan import ClusterShape\n"
        "with local_cluster(ClusterShape(cpus=1)):\n"
        "    print('answer', ray.get(ray.remote(lambda: 41).remote()))\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert "answer 41" in done.stdout, done.stderr
