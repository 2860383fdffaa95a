"""A server and the command line before studies of 5,000 trials: how long answers take, and what they cost in memory.

    python tests/benchmarks/large_study.py [--trials 5000] [--seconds 30] [--streams 50] [--json FILE]

Two studies are made through the real storage, of made-up values: nothing is trained. One has ended; with the other a
process of its own goes on as a driver does, ten trials a second. The server's application (all of it but Ray) runs in
another process. A viewer asks over one connection for the study, its first trials, its trials by value, its curve and
its page in turn, first alone, then beside event streams of the study under way. No request is one that the server has
answered a moment ago. The command line's seconds are those of `dialin show` and of `dialin --help` beside it, so with
and without what is no import.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[2]))

from dialin.events.log import EventLog
from dialin.events.types import EpochReported, Event, TrialEnded, TrialStarted
from dialin.lifecycle import StudyState, TrialState
from dialin.paths import OutputFolder
from dialin.planning.plan import ClusterShape, plan_study
from dialin.search.decision import Decision
from dialin.search.records import Trial
from dialin.search.storage import opened_storage
from dialin.search.study import Study
from dialin.settings import Settings
from dialin.specification import load_spec, stored_spec, to_yaml
from dialin.store.leases import acquire
from dialin.store.studies import Studies
from tests.served import serving

TRIALS_A_SECOND = 10.0
PATHS = {
    "show": "/api/v1/studies/{}",
    "trials": "/api/v1/studies/{}/trials",
    "trials by value": "/api/v1/studies/{}/trials?sort=-value",
    "curve": "/api/v1/studies/{}/curve",
    "page": "/studies/{}",
    "page, live": "/studies/{}/live",
}


class Maker:
    """A driver whose trials are made up."""

    def __init__(self, study: Study, log: EventLog, epochs: int) -> None:
        self._study, self._log, self._epochs = study, log, epochs
        self._random = random.Random(1)

    def train(self) -> Trial | None:
        """One trial, as far as the study lets it go; None when the study has no more."""
        trial = self._study.ask()
        if trial is None:
            return None
        self._log.append(TrialStarted(trial.number, trial.params, trial.epochs_done))
        happened: list[Event] = []
        top, ended = self._random.random(), Decision.of_state(TrialState.FAILED, "never")
        with self._study.batch():
            for epoch in range(trial.epochs_done + 1, self._epochs + 1):
                value = top * (1 - 0.7**epoch)
                decision = self._study.report(trial, epoch, value)
                self._study.record_checkpoint(trial, epoch, f"checkpoints/{trial.number:04d}/epoch-{epoch:04d}")
                happened.append(EpochReported(trial.number, epoch, {"val_accuracy": value}, value))
                if not decision.continues:
                    ended = decision
                    self._study.record_metrics(trial, {"val_accuracy": value, "val_loss": 1 - value, "train_loss": 0.5})
                    self._study.tell(trial, decision)
                    break
            self._log.append(*happened)
        self._log.append(TrialEnded(trial.number, ended.state.value, ended.text()))
        return trial

    def end_waiting(self) -> None:
        for trial, decision in self._study.paused():
            self._study.tell(trial, decision)


@contextmanager
def driven(settings: Settings, study_id: str) -> Iterator[Maker]:
    with Studies(settings.database) as studies:
        spec = stored_spec(studies.find(study_id).spec)
    log = EventLog(OutputFolder(settings.out).study(study_id).events)
    with opened_storage(settings.database) as storage, log, acquire(settings.database, study_id):
        study = Study.open(plan_study(spec, ClusterShape(2)), storage, study_id)
        yield Maker(study, log, spec.budget.epochs)


def make(settings: Settings, trials: int, ends: bool) -> str:
    """A study of so many trials; its id. One that does not end has a budget for many more."""
    budget = f"budget.trials={trials if ends else 4 * trials}"
    spec = load_spec("digits", [budget, "search.sampler=random"])
    with Studies(settings.database) as studies:
        row = studies.create(spec.name, to_yaml(spec))
    with driven(settings, row.id) as maker:
        while (trial := maker.train()) is not None and (ends or trial.number < trials):
            pass
        if ends:
            maker.end_waiting()
    if ends:
        with Studies(settings.database) as studies:
            studies.end(row.id, StudyState.INTERRUPTED, "made up", {})
    return row.id


def grow(settings: Settings, study_id: str) -> None:
    """Go on with a study until somebody closes standard input."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    with driven(settings, study_id) as maker:
        while not ended.wait(1 / TRIALS_A_SECOND):
            maker.train()


@contextmanager
def child(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """This file in a process of its own, which ends when its standard input does."""
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


def measure(url: str, studies: Sequence[str], seconds: float) -> tuple[dict[str, list[float]], list[str]]:
    """The seconds of each answer, by what was asked for, and what was not answered well."""
    found: dict[str, list[float]] = {name: [] for name in PATHS}
    bad: list[str] = []
    ends, number = time.monotonic() + seconds, 0
    with httpx.Client(base_url=url, timeout=60) as client:
        while time.monotonic() < ends:
            for name, path in PATHS.items():
                number += 1
                asked = path.format(studies[number // len(PATHS) % len(studies)])
                began = time.monotonic()
                answer = client.get(asked, params={**httpx.URL(asked).params, "n": str(number)})
                found[name].append(time.monotonic() - began)
                if answer.status_code != 200:
                    bad.append(f"{asked}: {answer.status_code}")
                time.sleep(0.02)  # a viewer, not a flood
    return found, bad


def listen(url: str, study_id: str, ended: threading.Event, heard: list[int]) -> None:
    """One event stream, read as long as the measuring goes on."""
    path = f"{url}/api/v1/studies/{study_id}/events?tail=true"
    with suppress(httpx.HTTPError), httpx.stream("GET", path, timeout=30) as answer:
        for line in answer.iter_lines():
            heard.append(len(line))
            if ended.is_set():
                return


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def command_seconds(*arguments: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "dialin", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def summary(found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    return {
        name: {
            "n": len(seconds),
            "p50_ms": 1000 * statistics.median(seconds),
            "p99_ms": 1000 * statistics.quantiles(seconds, n=100, method="inclusive")[98],
            "most_ms": 1000 * max(seconds),
        }
        for name, seconds in found.items()
    }


def run(out: Path, trials: int, seconds: float, streams: int) -> dict[str, Any]:
    settings = Settings(out, out / "data")
    ended_study, growing = make(settings, trials, ends=True), make(settings, trials, ends=False)
    result: dict[str, Any] = {"trials": trials, "load": os.getloadavg()[0]}
    result["help_s"] = [command_seconds("--help") for _ in range(3)]
    result["show_s"] = [command_seconds("show", growing, "--out", str(out)) for _ in range(3)]
    with ExitStack() as stack:
        server = stack.enter_context(child("--serve", str(out)))
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        result["first_ms"] = 1000 * sum(httpx.get(url + PATHS["show"].format(each), timeout=60).elapsed.total_seconds() for each in (ended_study, growing)) / 2  # fmt: skip
        result["mib_before"] = resident_mib(server.pid)
        stack.enter_context(child("--grow", str(out), "--study", growing))
        result["alone"], result["bad"] = _measured(url, [growing, ended_study], seconds)
        ended, heard = threading.Event(), [0]
        threads = [threading.Thread(target=listen, args=(url, growing, ended, heard)) for _ in range(streams)]
        for thread in threads:
            thread.start()
        result["beside_streams"], more = _measured(url, [growing, ended_study], seconds)
        ended.set()
        for thread in threads:
            thread.join()
        result["bad"] += more
        result["events_heard"] = len(heard) - 1
        result["mib_after"] = resident_mib(server.pid)
    return result


def _measured(url: str, studies: Sequence[str], seconds: float) -> tuple[dict[str, dict[str, float]], list[str]]:
    found, bad = measure(url, studies, seconds)
    return summary(found), bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=30.0, help="of measuring, twice")
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--grow", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--study", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        with serving(arguments.serve) as url:
            print(url, flush=True)
            sys.stdin.read()
        return
    if arguments.grow is not None:
        grow(Settings(arguments.grow, arguments.grow / "data"), arguments.study)
        return
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), arguments.trials, arguments.seconds, arguments.streams)
    show, empty = statistics.median(result["show_s"]), statistics.median(result["help_s"])
    print(f"dialin show    {1000 * show:.0f} ms; dialin --help {1000 * empty:.0f} ms")
    print(f"first answer   {result['first_ms']:.0f} ms, a study is read for the first time")
    for title in ("alone", "beside_streams"):
        for name, one in result[title].items():
            print(f"{title:<15}{name:<16} {one['p50_ms']:6.1f} ms median, {one['p99_ms']:6.1f} ms p99, n = {one['n']}")
    print(f"memory         {result['mib_before']:.0f} MiB before, {result['mib_after']:.0f} MiB after")
    print(f"               {len(result['bad'])} answers were not 200, {result['events_heard']} lines of events")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
