"""The recorder as a process: how it is started, replaced when it dies, and waited for at the end of a study."""

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
LOOK_SECONDS = 1.0  # between two checks of the recorder and of the event log, while a study runs
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0  # before a recorder that died is replaced
STALL_SECONDS = 5.0  # how long the end of a study waits while calls to MLflow fail
START_SECONDS = 40.0  # how long it waits while none failed: loading MLflow and making its database take a while
SILENT_SECONDS, SURE_SECONDS = 330.0, 30.0  # of a recorder that has work; it ends itself a little earlier
MOST_ENDINGS = 3  # recorders that may die while the end of a study waits for them
GAVE_UP = 3  # a recorder's exit code


class RecorderSupervisor:
    """Keeps one recorder running for an event log while its study runs. A recorder that dies is replaced, after a pause
    that doubles each time.

    folder: the folder of the event log.
    command: the recorder's command line.
    restore: writes the log again if it was deleted, and returns whether it was.
    """

    def __init__(self, folder: Path, command: list[str], restore: Callable[[], bool]) -> None:
        self._folder, self._command, self._restore = folder, command, restore
        self._process: subprocess.Popen[bytes] | None = None
        self._launched_at = 0.0
        self._silent_since: float | None = None
        self._finishing = threading.Event()
        self._watch = threading.Thread(target=self._keep, name="recorder", daemon=True)

    def start(self) -> None:
        """Start the recorder and the thread that watches it."""
        self._launch()
        self._watch.start()

    def hurry(self) -> None:
        """Have the recorder write the rest at once."""
        process = self._process
        if process is not None and process.stdin is not None:
            with suppress(OSError, ValueError):  # it died and is about to be replaced
                os.write(process.stdin.fileno(), b"\n")

    def kill(self) -> None:
        """End the recorder at once."""
        self._stop_watching()
        self._end()

    def finish(self, timeout_seconds: float) -> None:
        """Have the recorder write the rest, and wait until it has, gives up, or gets nothing done, but no longer than
        `timeout_seconds`. The recorder continues by itself after that."""
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
        """Replace the recorder whenever it died or hangs, until the study ends."""
        pause, began = FIRST_PAUSE_SECONDS, time.monotonic()
        while not self._finishing.wait(LOOK_SECONDS):
            if self._restore():
                self._end()  # its lock was deleted, too, so that it no longer keeps other recorders away
            frozen = self._is_frozen()
            if frozen:
                self._end()
            if not self._is_missing():
                continue
            if time.monotonic() - began > LONGEST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            self._report_end(pause, frozen)
            if self._finishing.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            began = time.monotonic()
            self._launch()

    def _is_missing(self) -> bool:
        """Whether there is work and no recorder. One that wrote everything ends with exit code 0."""
        if self._process is None:
            return True
        code = self._process.poll()
        return code is not None and (code != 0 or bool(lag_of(self._folder)))

    def _report_end(self, pause: float, frozen: bool) -> None:
        code = self._process.poll() if self._process is not None else None
        if frozen:
            note_trouble(self._folder, f"the recorder gave no sign for {SILENT_SECONDS:.0f} s and was replaced")
        elif code:
            note_trouble(self._folder, f"the recorder ended ({_how(code)}); another one follows in {pause:.0f} s")

    def _is_frozen(self) -> bool:
        """Whether there is work, but no sign of a recorder, and that for longer than the work exists."""
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
        except OSError as error:  # the folder was just deleted, or the machine has too many processes
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
        """The recorder's exit code; None if it does not end within the time, -1 if it did not start."""
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
        """Leave the recorder running. A thread waits for its end, so that it does not become a zombie."""
        if self._process is not None and self._process.poll() is None:
            threading.Thread(target=self._process.wait, name="recorder", daemon=True).start()


def sync(folder: Path, uri: str, artifacts: Path | None = None, patience_seconds: float = 30.0) -> int:
    """Replicate the rest of an event log into MLflow and wait for it; returns how many events are left.

    Runs that a dead driver left open are ended as interrupted. Do not call it for a study that runs: this recorder then
    waits `patience_seconds` for the study's own one, and gives up. `read_lag` says what failed."""
    command = recorder_command(folder, uri, artifacts, patience_seconds)
    code = start_recorder(folder, command, subprocess.DEVNULL).wait()
    left = lag_of(folder)
    return left if code == 0 else max(left, 1)


def start_recorder(folder: Path, command: list[str], stdin: int) -> subprocess.Popen[bytes]:
    """Start a recorder by its command line. Its output is appended to a file beside the event log. Raises OSError."""
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that Ctrl-C reaches the driver only
        )


def recorder_command(folder: Path, uri: str, artifacts: Path | None, patience_seconds: float = 30.0) -> list[str]:
    """The command line of a recorder for an event log; the arguments are those of `sync`."""
    command = module_command("dialin.tracking.recorder", "--folder", str(folder), "--uri", uri)
    command += ["--patience", f"{patience_seconds:g}"]
    return [*command, "--artifacts", str(artifacts)] if artifacts is not None else command


def _how(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"exit code {code}"
