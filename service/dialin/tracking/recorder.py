"""The recorder: a process that replicates a study's event log into MLflow.

    python -m dialin.tracking.recorder --folder FOLDER --uri URI [--artifacts DIR] [--patience SECONDS]

While MLflow does not answer it retries, at growing intervals, and loses nothing (`replicate.py` says how). It ends when
the log says that the study has ended, or when standard input closes, after writing what is there. If the driver died
without ending the study, the study's runs are ended as interrupted, so that none stays RUNNING. There is one recorder a
log: it holds a lock beside the log, and ends when the file of that lock is gone. Exit code 0: everything is written; 3:
it gave up with events left; 4: the folder was deleted, or a call to MLflow never returned.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from dialin.paths import OutputFolder
from dialin.settings import LOOPBACK
from dialin.supervisor import logs
from dialin.tracking.lag import LOCK, cause_of, clear_trouble, note_progress, note_trouble
from dialin.tracking.mlflow_client import SQLITE, LazyClient, prepare_environment
from dialin.tracking.replicate import Replicator

_LOG = logging.getLogger("dialin.tracking.recorder")  # the module runs as __main__

PAUSE_SECONDS = 1.0  # between two steps, so that batches grow while a study runs
LOOK_SECONDS = 0.1  # between two checks of whether to finish
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.5, 15.0
TERMINATED_PATIENCE_SECONDS = 2.0
HTTP_WORKERS = 4  # a request mostly waits
LOOPBACK_WORKERS = 2  # a server on this machine shares its cores with the recorder
SOME_LEFT, ABORTED = 3, 4  # exit codes
HANGING_SECONDS = 300.0  # a call that takes longer is taken for one that never returns
MOST_MEMORY_BYTES = 1 << 30  # four times what the recorder needs; a response without an end must not fill the machine


class Finishing:
    """Whether the recorder should end once everything is written, and how long it keeps retrying until then. May be
    used by a signal's handler.

    patience_seconds: how long; None: nobody has asked it to finish.
    is_near: whether the last trial has ended, so that someone waits for what is written now.
    """

    def __init__(self) -> None:
        self.patience_seconds: float | None = None
        self.is_near = False

    @property
    def asked(self) -> bool:
        """Whether the recorder was asked to finish."""
        return self.patience_seconds is not None

    def ask(self, patience_seconds: float) -> None:
        """Ask the recorder to finish. The shortest patience of all requests counts."""
        before = self.patience_seconds
        self.patience_seconds = patience_seconds if before is None else min(before, patience_seconds)

    def wait(self, seconds: float, *, hurries: bool = False) -> None:
        """Wait, but no longer than until the recorder is asked to finish; with `hurries`, only a moment once the end of
        the study is near."""
        until = time.monotonic() + seconds
        while not self.asked and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))
            if hurries and self.is_near:
                return


class Turn:
    """A recorder's exclusive time with an event log. A context manager that holds the lock.

    It leaves files beside the log that say when the recorder last succeeded and what failed since, and ends the process
    if a call to MLflow hangs.

    taken: whether the lock was free.
    """

    def __init__(self, folder: Path, finishing: Finishing) -> None:
        self._folder, self._finishing = folder, finishing
        self._path = folder / LOCK
        self._lock = FileLock(self._path)
        self._held: os.stat_result | None = None
        self._moved_at: float | None = None  # None while no call is being made
        self.taken = False

    def __enter__(self) -> Turn:
        self.taken = _take_lock(self._lock, self._finishing)
        if self.taken:
            self._held = self._found()
            note_progress(self._folder)
            threading.Thread(target=self._end_when_hanging, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def is_ours(self) -> bool:
        """Whether the lock is still where the next recorder looks for it."""
        found = self._found()
        return found is not None and self._held is not None and os.path.samestat(found, self._held)

    def moved(self) -> None:
        """A call to MLflow succeeded."""
        self._moved_at = time.monotonic()
        note_progress(self._folder)

    def begin(self) -> None:
        """A step begins, in which calls may be made."""
        self._moved_at = time.monotonic()

    def end(self, error: Exception | None = None) -> None:
        """The step is over. `error`: why it failed."""
        self._moved_at = None
        if error is None:
            clear_trouble(self._folder)
        else:
            self._report(cause_of(error))

    def _report(self, text: str) -> None:
        note_trouble(self._folder, text)
        _LOG.warning("%s", text)

    def _found(self) -> os.stat_result | None:
        try:
            return self._path.stat()
        except OSError:
            return None

    def _end_when_hanging(self) -> None:
        while True:
            time.sleep(1.0)
            since = self._moved_at
            if since is not None and time.monotonic() - since > HANGING_SECONDS:
                self._report(f"MLflow has not answered for {HANGING_SECONDS:.0f} s")
                os._exit(ABORTED)


def run(recorder: Replicator, finishing: Finishing, turn: Turn) -> int:
    """Replicate until everything is written and nothing more will come. Returns the exit code."""
    backoff, failing_since = BACKOFF_SECONDS, None
    while True:
        if not turn.is_ours:
            _LOG.warning("the folder of the study's event log was deleted or replaced; this recorder ends")
            return ABORTED
        try:
            turn.begin()
            written = recorder.step()
            if finishing.asked and written == 0:
                recorder.abandon()
                turn.end()
                return 0
            turn.end()
        except Exception as error:  # noqa: BLE001  the log keeps what was not written, whatever MLflow raises
            failing_since = failing_since or time.monotonic()
            turn.end(error)
            if _out_of_patience(finishing, failing_since):
                return SOME_LEFT
            _back_off(finishing, backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)
            continue
        backoff, failing_since = BACKOFF_SECONDS, None
        if recorder.done:
            return 0
        finishing.wait(PAUSE_SECONDS, hurries=True)


def main() -> int:
    """The recorder's process. Returns its exit code."""
    arguments = _arguments()
    # The log's file is the process's standard error; every second failure would fill it with tracebacks.
    logs.configure("info", os.environ.get("DIALIN_LOG_FORMAT") or "text")
    if arguments.uri.startswith(SQLITE):
        # A database of ours has the permissions of the folder that it lies in.
        os.umask(OutputFolder(Path(arguments.uri.removeprefix(SQLITE)).parent).mask)
    finishing = Finishing()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; the driver handles it
    signal.signal(signal.SIGTERM, lambda *_: finishing.ask(TERMINATED_PATIENCE_SECONDS))
    threading.Thread(target=watch_stdin, args=(finishing, arguments.patience), daemon=True).start()
    os.nice(10)  # training has priority
    prepare_environment()
    _limit_memory()
    with logs.log_context(study=arguments.folder.parent.name), Turn(arguments.folder, finishing) as turn:
        if not turn.taken:
            _LOG.warning("another recorder writes this event log; this one ends")
            return SOME_LEFT
        uri = arguments.uri
        recorder = Replicator(arguments.folder, LazyClient(uri), arguments.artifacts, uri, workers_for(uri), turn.moved)
        return run(recorder, finishing, turn)


def workers_for(uri: str) -> int:
    """How many runs to write at the same time into the MLflow at `uri`."""
    if not uri.startswith("http"):
        return 1
    return LOOPBACK_WORKERS if urlsplit(uri).hostname in LOOPBACK else HTTP_WORKERS


def watch_stdin(finishing: Finishing, patience_seconds: float) -> None:
    """Pass on what the driver says by standard input: a line means that the end is near, the input's end that it has
    come. Returns at the input's end."""
    # Read without sys.stdin: Python aborts at its exit when a thread is inside of that.
    with suppress(OSError):
        while os.read(0, 4096):
            finishing.is_near = True
    finishing.ask(patience_seconds)  # the driver closed it, or died


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dialin.tracking.recorder", description="Replicate a study's event log into MLflow."
    )
    parser.add_argument("--folder", type=Path, required=True, help="the folder of the event log")
    parser.add_argument("--uri", required=True, help="MLflow's tracking URI")
    parser.add_argument("--artifacts", type=Path, help="where files go when the URI is a database")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds to keep retrying once asked to finish")
    return parser.parse_args()


def _out_of_patience(finishing: Finishing, since: float) -> bool:
    patience = finishing.patience_seconds
    return patience is not None and time.monotonic() - since >= patience


def _back_off(finishing: Finishing, seconds: float) -> None:
    jittered = seconds * random.uniform(0.5, 1.0)
    if finishing.asked:
        time.sleep(min(jittered, BACKOFF_SECONDS))
    else:
        finishing.wait(jittered)


def _take_lock(lock: FileLock, finishing: Finishing) -> bool:
    """Wait for an earlier recorder, which may still write what an interrupted driver logged."""
    since = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=0)
            return True
        except Timeout:
            if _out_of_patience(finishing, since):
                return False
            time.sleep(LOOK_SECONDS)


def _limit_memory() -> None:
    """Limit what this process allocates, not what it maps: a response that is too large then is a MemoryError, handled
    as any other error of MLflow, and the rest of the machine is not affected."""
    with suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = MOST_MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MOST_MEMORY_BYTES, most)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))


if __name__ == "__main__":
    sys.exit(main())
