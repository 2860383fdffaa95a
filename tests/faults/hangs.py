"""Faults in which nothing dies: a trial that never returns, a driver that stands still, and six who ask at once."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dialin.errors import ConflictError
from dialin.lifecycle import TrialState
from dialin.paths import OutputFolder
from tests.faults.harness import Place, check, descendants, wait_until
from tests.faults.injections import Row
from tests.server.harness import Up, is_alive

HANGING = """\
import pathlib
import time


def train(config, trial):
    for epoch in range(1, trial.epochs + 1):
        mark = pathlib.Path(__file__).with_name("hangs")
        if epoch == 2 and not mark.exists():
            mark.touch()
            time.sleep(10_000)
        time.sleep(0.1)
        trial.report(epoch, config["x"] * epoch)
"""
HANGING_SPEC = """\
name: faulty
objective: {python: train.py:train, metric: val_accuracy}
space: {x: {min: 0.0, max: 1.0}}
search: {sampler: random}
early_stopping: off
budget: {trials: %d, epochs: 3, epoch_minutes: 0.1}
"""
EXTENDED = 4


def trial_hangs(folder: Path) -> Row:
    """A trial never returns: it fails with a reason, its worker is replaced, and the others go on."""
    place = Place(folder, 6, 3, 0.0)
    (folder / "train.py").write_text(HANGING)
    (folder / "faulty.yaml").write_text(HANGING_SPEC % place.trials)
    process = place.start("ray")
    wait_until(lambda: process.poll() is not None or (folder / "hangs").exists(), 120, "a trial hangs")
    began = time.monotonic()
    wait_until(lambda: process.poll() is not None or _failed(place), 60, "its end")
    waited = time.monotonic() - began
    family = [pid for pid, _ in descendants(process.pid)]
    assert process.wait(180) == 0, place.log()[-3000:]
    (reason,) = [record.reason for record in place.records() if record.state is TrialState.FAILED]
    assert "was not reported within" in reason, reason
    assert "the limit is 6 s (budget.epoch_minutes); its worker was killed" in reason, reason
    assert not any(map(is_alive, family))
    verdict = check(place)
    return Row("trial hangs for ever", 1, verdict.lost - 1, verdict.repeated, waited)


def driver_frozen(folder: Path) -> Row:
    """A server's driver is stopped (SIGSTOP) and stays so: another one takes its place, and the study says why."""
    place = Place(folder, 8, 6, 0.3)
    with Up(folder / "up") as up, up.client() as client:
        place.out = OutputFolder(up.out)
        study = client.submit(folder / "faulty.yaml")
        wait_until(lambda: len(place.epochs_logged()) > 5, 120, "five epochs")
        (driver,) = up.drivers()
        os.kill(driver, signal.SIGSTOP)
        began = time.monotonic()
        wait_until(lambda: study.refresh().info.attempts == 2, 90, "another driver")
        assert not is_alive(driver)
        before = len(place.epochs_logged())
        wait_until(lambda: len(place.epochs_logged()) > before, 120, "it trains")
        waited = time.monotonic() - began
        study.wait(progress=False, timeout=180)
        assert study.info.state == "complete", study.info
        (line,) = study.detail().history
        assert f"its driver, process {driver} on " in line
        assert "attempt 2 follows" in line
        verdict = check(place)
    return Row("driver frozen (SIGSTOP), replaced", 1, verdict.lost, verdict.repeated, waited)


def extended_at_once(folder: Path) -> Row:
    """Six add trials to a study at the same moment: what is taken counts, and the others are told."""
    place = Place(folder, 4, 2, 0.0)
    with Up(folder / "up") as up, up.client() as client:
        place.out = OutputFolder(up.out)
        study = client.submit(folder / "faulty.yaml")
        study.wait(progress=False, timeout=180)
        began = time.monotonic()
        with ThreadPoolExecutor(6) as pool:
            taken = list(pool.map(lambda _: _is_extended(up, study.id), range(6))).count(True)
        waited = time.monotonic() - began
        study.refresh().wait(progress=False, timeout=180)
        place.trials += EXTENDED * taken
        assert taken >= 1
        assert study.info.trials.budget == place.trials, study.info
        verdict = check(place)
    return Row("six extensions at once", 1, verdict.lost, verdict.repeated, waited)


def _is_extended(up: Up, study_id: str) -> bool:
    with up.client() as client:
        try:
            client.study(study_id).extend(trials=f"+{EXTENDED}")
        except ConflictError:
            return False
    return True


def _failed(place: Place) -> bool:
    return any(record.state is TrialState.FAILED for record in place.records())
