"""The faults of a server: what is done to the parts of `dialin up` while a study runs on it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dialin.paths import OutputFolder
from tests.faults.harness import Place, check, descendants, kill
from tests.faults.injections import Row
from tests.server.harness import Up, is_alive, wait_until

NAMES = {"api": "the API", "mlflow": "MLflow", "ray": "Ray"}
FROZEN = {"dialin.server.serve": "the API", "mlflow_server": "MLflow", "/raylet/raylet": "Ray", "gcs_server": "Ray"}


def guards_killed(folder: Path, parts: Sequence[str]) -> Row:
    """SIGKILL of the process that looks after a part."""

    def inject(up: Up, part: str) -> str:
        guard = up.guard_of(part)
        family = [pid for pid, _ in descendants(guard)]
        again = up.log().count(f"{NAMES[part]} is up again")
        kill(guard)
        wait_until(lambda: up.log().count(f"{NAMES[part]} is up again") > again, 180, f"{NAMES[part]} is up again")
        assert not any(map(is_alive, family)), "something of it was left"
        return f"the guard of {NAMES[part]} was ended by SIGKILL"

    return _server_row(folder, "guard of a server's part killed", parts, inject)


def parts_frozen(folder: Path, processes: Sequence[str]) -> Row:
    """SIGSTOP of a part, or of what it cannot do without."""

    def inject(up: Up, process: str) -> str:
        name = FROZEN[process]
        pid = max(
            pid
            for pid, line in up.processes()
            if process in line.split(" --")[0] and "dialin.supervisor.guard" not in line
        )
        again = up.log().count(f"{name} is up again")
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: up.log().count(f"{name} is up again") > again, 300, f"{name} is replaced")
        assert not is_alive(pid)
        return f"{name} is replaced: it has not answered for"

    return _server_row(folder, "part of a server frozen (SIGSTOP)", processes, inject)


def _server_row(folder: Path, fault: str, times: Sequence[str], inject: Callable[[Up, str], str]) -> Row:
    """A study on a server, the faults one after the other, each while it trains, and what came of it in the end."""
    place = Place(folder, 10 * len(times), 27, 0.3)
    spec = folder / "faulty.yaml"
    spec.write_text(spec.read_text() + "early_stopping: off\n")  # it must last until the last fault
    longest = 0.0
    with Up(folder, DIALIN_HEALTH_TIMEOUT_SECONDS="5") as up, up.client() as client:
        place.out = OutputFolder(up.out)
        study = client.submit(spec)
        for each in times:
            before = len(place.epochs_logged())
            wait_until(lambda: len(place.epochs_logged()) > before + 3, 180, "it trains")  # noqa: B023  asked at once
            began = time.monotonic()
            says = inject(up, each)
            assert up.process is not None
            assert up.process.poll() is None, up.log()
            assert says in up.log()
            assert says in (up.out / "server" / "up.log").read_text()
            before = len(place.epochs_logged())
            wait_until(lambda: len(place.epochs_logged()) > before, 240, "it goes on")  # noqa: B023
            longest = max(longest, time.monotonic() - began)
        study.wait(progress=False, timeout=300)
        verdict = check(place)
    return Row(fault, len(times), verdict.lost, verdict.repeated, longest)
