"""The recorder as a process: how it is started, kept at work, and waited for."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dialin.supervisor.commands import module_command
from dialin.tracking.lag import has_trouble, heard_at, lag_of, moved_at, note_trouble

LOG = "recorder.log"
LOOK_SECONDS = 1.0  # between two looks at the recorder and the spool of a study that runs
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0  # before a recorder that died is replaced
STALL_SECONDS = 5.0  # how long the end of a study waits while MLflow takes nothing
SILENT_SECONDS, SURE_SECONDS = 330.0, 30.0  # without a sign from a recorder that has work; its own limit is a bit less
START_SECONDS = 40.0  # or while nothing is known to be wrong: loading MLflow and making its database take a while
MOST_ENDINGS = 3  # recorders that may die while the end of a study waits
GAVE_UP = 3  # a recorder's exit code


class RecorderSupervisor:
    """Keeps one recorder at work on a spool folder while its study runs: one that dies is replaced, at once and later
    ever more slowly. `restore` writes a spool again that was deleted, and says whether it was."""

    def __init__(self, folder: Path, command: list[str], restore: Callable[[], bool]) -> None:
        self._folder, self._command, self._restore = folder, command, restore
        self._process: subprocess.Popen[bytes] | None = None
        self._launched_at = 0.0
        self._silent_since: float | None = None
        self._finishing = threading.Event()
        self._watch = threading.Thread(target=self._keep, name="recorder", daemon=True)

    def start(self) -> None:
        self._launch()
        self._watch.start()

    def hurry(self) -> None:
        """Have it write at once what there is."""
        process = self._process
        if process is not None and process.stdin is not None:
            with suppress(OSError, ValueError):  # it is no more, and about to be replaced
                os.write(process.stdin.fileno(), b"\n")

    def kill(self) -> None:
        """End the recorder, whatever it is at."""
        self._stop_watching()
        self._end()

    def finish(self, timeout_seconds: float) -> None:
        """Have the recorder write the rest, and wait for it until it has, gives up, or gets nothing done; at most for
        so long. It goes on by itself after that."""
        self._stop_watching()
        if self._process is None:
            return
        began = time.monotonic()
        waited_since = time.time()
        deaths = 0
        self._close_input()
        while time.monotonic() - began < timeout_seconds:
            if self._restore():
                self._end()
            code = self._wait(min(0.1, timeout_seconds))
            if code is None:
                if self._has_stalled(waited_since):
                    break
                continue
            if code == GAVE_UP or not lag_of(self._folder) or deaths == MOST_ENDINGS:
                break
            deaths += 1
            self._launch()
            self._close_input()
        self._leave()

    def _keep(self) -> None:
        pause, began = FIRST_PAUSE_SECONDS, time.monotonic()
        while not self._finishing.wait(LOOK_SECONDS):
            if self._restore():
                self._end()  # it may hold a lock that nobody looks at any more
            if frozen := self._is_frozen():
                self._end()
                note_trouble(self._folder, f"the recorder gave no sign for {SILENT_SECONDS:.0f} s and was replaced")
            code = self._process.poll() if self._process is not None else None
            if self._process is not None and (code is None or (code == 0 and not lag_of(self._folder))):
                continue
            if time.monotonic() - began > LONGEST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            if code and not frozen:
                note_trouble(self._folder, f"the recorder ended ({_how(code)}); another one follows in {pause:.0f} s")
            if self._finishing.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            began = time.monotonic()
            self._launch()

    def _is_frozen(self) -> bool:
        """Whether there is work, and no sign of a recorder, and that not just since the work came."""
        silent = time.time() - max(heard_at(self._folder), self._launched_at) > SILENT_SECONDS
        if not silent or not lag_of(self._folder):
            self._silent_since = None
            return False
        self._silent_since = self._silent_since or time.monotonic()
        return time.monotonic() - self._silent_since > SURE_SECONDS

    def _launch(self) -> None:
        self._close_input()
        self._launched_at, self._silent_since = time.time(), None
        try:
            self._process = start_recorder(self._folder, self._command, subprocess.PIPE)
        except OSError as error:  # the folder was deleted just now, or there are too many processes
            self._process = None
            note_trouble(self._folder, f"the recorder did not start: {error}")

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._close_input()

    def _close_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()

    def _stop_watching(self) -> None:
        self._finishing.set()
        if self._watch.is_alive():
            self._watch.join()

    def _wait(self, seconds: float) -> int | None:
        """Its exit code, if it ends within this time; -1 for one that did not start."""
        if self._process is None:
            time.sleep(seconds)
            return -1
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def _has_stalled(self, since: float) -> bool:
        idle = time.time() - max(since, moved_at(self._folder))
        return idle > (STALL_SECONDS if has_trouble(self._folder) else START_SECONDS)

    def _leave(self) -> None:
        """Let it live on, as it should; a thread waits for its end, so that no zombie stays while we live."""
        if self._process is not None and self._process.poll() is None:
            threading.Thread(target=self._process.wait, name="recorder", daemon=True).start()


def sync(folder: Path, uri: str, artifacts: Path | None = None, patience_seconds: float = 30.0) -> int:
    """Write what a spool folder still holds to MLflow, here and now; how many events are left, 0 when all is written.

    Runs that a dead driver left open are ended as interrupted, so do not call it on a study that runs: its own recorder
    is at work, and this one waits `patience_seconds` for it. `read_lag` says what went wrong."""
    command = recorder_command(folder, uri, artifacts, patience_seconds)
    code = start_recorder(folder, command, subprocess.DEVNULL).wait()
    left = lag_of(folder)
    return left if code == 0 else max(left, 1)


def start_recorder(folder: Path, command: list[str], stdin: int) -> subprocess.Popen[bytes]:
    """A recorder that was started by its command line; its log lies in the spool folder. Raises OSError."""
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is the driver's to handle
        )


def recorder_command(folder: Path, uri: str, artifacts: Path | None, patience_seconds: float = 30.0) -> list[str]:
    """The command line of the recorder process for a spool folder."""
    command = module_command("dialin.tracking.recorder", "--spool", str(folder), "--uri", uri)
    command += ["--patience", f"{patience_seconds:g}"]
    return [*command, "--artifacts", str(artifacts)] if artifacts is not None else command


def _how(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"exit code {code}"
