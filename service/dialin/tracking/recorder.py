"""The recorder: a process that reads a study's spool and writes it to MLflow, in batches, exactly once in effect.

    python -m dialin.tracking.recorder --spool FOLDER --uri URI [--artifacts DIR] [--patience SECONDS]

While MLflow does not answer it tries again, ever more slowly, and loses nothing (`recording.py` says how). It ends when
the spool says that the study has ended, or when standard input closes, after writing what is there; a study whose
driver died without a word is ended as interrupted, so that no run stays RUNNING. One recorder a spool: it holds a lock
beside it, and ends when that lock's file is not there any more. Exit code 0: all written; 3: gave up with something
left; 4: the spool was deleted under it, or a call to MLflow never returned.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from dialin.paths import OutputFolder
from dialin.settings import LOOPBACK, MLFLOW_SECRET
from dialin.tracking.lag import LOCK, cause_of, clear_trouble, note_progress, note_trouble
from dialin.tracking.mlflow_access import use_secret
from dialin.tracking.replicate import Replicator

PAUSE_SECONDS = 1.0  # between steps, so that batches grow while a study runs
LOOK_SECONDS = 0.1  # between two looks at whether to finish
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.5, 15.0
TERMINATED_PATIENCE_SECONDS = 2.0
HTTP_WORKERS = 4  # a call is mostly waiting; a server on this machine shares its cores with us
LOOPBACK_WORKERS = 2
SOME_LEFT, BROKEN_OFF = 3, 4
HANGING_SECONDS = 300.0  # without a call that returned, while one is under way
MOST_MEMORY = 1 << 30  # bytes; four times what it takes. An answer without an end must not take the machine's
SQLITE = "sqlite:///"
OPENING_SECONDS = 60.0


class Finishing:
    """Whether to end once all is written, and how long to go on trying. Safe to ask from a signal's handler.

    `is_near`: the last trial has ended; somebody waits for what is written now."""

    def __init__(self) -> None:
        self.patience_seconds: float | None = None
        self.is_near = False

    @property
    def asked(self) -> bool:
        return self.patience_seconds is not None

    def ask(self, patience_seconds: float) -> None:
        """From now on; the shortest patience asked for counts."""
        before = self.patience_seconds
        self.patience_seconds = patience_seconds if before is None else min(before, patience_seconds)

    def wait(self, seconds: float, *, hurries: bool = False) -> None:
        """Let time pass, but not once this is asked for; with `hurries` only a moment once the end is near."""
        until = time.monotonic() + seconds
        while not self.asked and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))
            if hurries and self.is_near:
                return


class Turn:
    """A recorder's time with a spool: its lock, and for whoever looks from outside when it last got something done and
    what went wrong since. A context manager; `taken` says whether the turn was had."""

    def __init__(self, folder: Path, finishing: Finishing) -> None:
        self._folder, self._finishing = folder, finishing
        self._path = folder / LOCK
        self._lock = FileLock(self._path)
        self._held: os.stat_result | None = None
        self._moved_at: float | None = None  # None: no call is under way
        self.taken = False

    def __enter__(self) -> Turn:
        self.taken = _take_turn(self._lock, self._finishing)
        if self.taken:
            self._held = self._found()
            note_progress(self._folder)
            threading.Thread(target=self._end_when_hanging, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def is_ours(self) -> bool:
        """Whether the lock still is where the next recorder would look for it."""
        found = self._found()
        return found is not None and self._held is not None and os.path.samestat(found, self._held)

    def moved(self) -> None:
        """A call to MLflow was made."""
        self._moved_at = time.monotonic()
        note_progress(self._folder)

    def begin(self) -> None:
        self._moved_at = time.monotonic()

    def end(self, error: Exception | None = None) -> None:
        """A step is over. `error`: why it failed."""
        self._moved_at = None
        if error is None:
            clear_trouble(self._folder)
        else:
            text = cause_of(error)
            note_trouble(self._folder, text)
            _say(text)

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
                text = f"MLflow has not answered for {HANGING_SECONDS:.0f} s"
                note_trouble(self._folder, text)
                _say(text)
                os._exit(BROKEN_OFF)


def run(recorder: Replicator, finishing: Finishing, turn: Turn) -> int:
    """Step until all is written and nothing more will come. Returns the exit code."""
    backoff, failing_since = BACKOFF_SECONDS, None
    while True:
        if not turn.is_ours:
            _say("the spool's folder was deleted or replaced; this recorder ends")
            return BROKEN_OFF
        try:
            turn.begin()
            written = recorder.step()
            if finishing.asked and written == 0:
                recorder.abandon()
                turn.end()
                return 0
            turn.end()
        except Exception as error:  # noqa: BLE001  whatever MLflow raises, the spool waits
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


def _out_of_patience(finishing: Finishing, since: float) -> bool:
    patience = finishing.patience_seconds
    return patience is not None and time.monotonic() - since >= patience


def _back_off(finishing: Finishing, seconds: float) -> None:
    jittered = seconds * random.uniform(0.5, 1.0)
    if finishing.asked:
        time.sleep(min(jittered, BACKOFF_SECONDS))
    else:
        finishing.wait(jittered)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dialin.tracking.recorder", description="Write a spool to MLflow.")
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--uri", required=True)
    parser.add_argument("--artifacts", type=Path)
    parser.add_argument("--patience", type=float, default=30.0, help="seconds to go on trying once asked to finish")
    arguments = parser.parse_args()
    if arguments.uri.startswith(SQLITE):
        # A database of our own is closed to other accounts, as the folder that it lies in.
        os.umask(OutputFolder(Path(arguments.uri.removeprefix(SQLITE)).parent).mask)
    finishing = Finishing()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver's to handle
    signal.signal(signal.SIGTERM, lambda *_: finishing.ask(TERMINATED_PATIENCE_SECONDS))
    threading.Thread(target=_watch_stdin, args=(finishing, arguments.patience), daemon=True).start()
    os.nice(10)  # training goes first
    _prepare_environment()
    _limit_memory()
    with Turn(arguments.spool, finishing) as turn:
        if not turn.taken:
            _say("another recorder is at work on this spool")
            return SOME_LEFT
        uri = arguments.uri
        recorder = Replicator(arguments.spool, LazyClient(uri), arguments.artifacts, uri, workers_for(uri), turn.moved)
        return run(recorder, finishing, turn)


def workers_for(uri: str) -> int:
    """How many runs to write at the same time into the MLflow at `uri`."""
    if not uri.startswith("http"):
        return 1
    return LOOPBACK_WORKERS if urlsplit(uri).hostname in LOOPBACK else HTTP_WORKERS


def _take_turn(lock: FileLock, finishing: Finishing) -> bool:
    """Wait for the recorder before us: that of a driver that was just interrupted may still be writing."""
    since = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=0)
            return True
        except Timeout:
            if _out_of_patience(finishing, since):
                return False
            time.sleep(LOOK_SECONDS)


class LazyClient:
    """An MlflowClient made at its first use: making one on SQLite migrates the database, and may fail as any call."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._client is None:
            self._client = sqlite_client(self._uri) if self._uri.startswith(SQLITE) else _client(self._uri)
        return getattr(self._client, name)


def sqlite_client(uri: str, make_store: Callable[[str], object] | None = None) -> Any:
    """An MlflowClient on a SQLite file, which is made if it is missing. `make_store` makes the tables of MLflow's store
    at a URI; by default a client does."""
    database = uri.removeprefix(SQLITE)
    # Two processes that migrate one new database at the same time ruin it: MLflow locks only a part of that.
    with FileLock(f"{database}.lock", timeout=OPENING_SECONDS):
        if not Path(database).exists():
            _make_database(Path(database), make_store or _make_tables)
        # One that cannot be opened MLflow tries again for minutes, without a word.
        with closing(sqlite3.connect(database, timeout=OPENING_SECONDS)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
        client = _client(uri)
        # In the write-ahead log a commit costs half, and who looks at the pages does not hold us up.
        with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    return client


def _make_database(database: Path, make_store: Callable[[str], object]) -> None:
    """A new database, complete or not at all: MLflow cannot repair one whose migrations were interrupted. MLflow's
    command `mlflow db upgrade` migrates a database, but does not make one."""
    partial = database.with_name(f"{database.name}.partial")
    for left_over in (partial, partial.with_name(f"{partial.name}-journal")):
        left_over.unlink(missing_ok=True)
    make_store(f"{SQLITE}{partial}")
    partial.rename(database)  # connections that MLflow keeps to it follow the file and are not used again


def _make_tables(uri: str) -> None:
    _client(uri).search_experiments(max_results=1)


def _client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _watch_stdin(finishing: Finishing, patience_seconds: float) -> None:
    # Not by way of sys.stdin: Python aborts at its end when a thread is still inside of that.
    with suppress(OSError):
        while os.read(0, 4096):
            finishing.is_near = True
    finishing.ask(patience_seconds)  # the driver closed it, or is no more


def _prepare_environment() -> None:
    os.environ.update(
        {
            # MLflow would send a create again by itself when its answer got lost: a doubled run that nobody hears of.
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # costs a call a run
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_LOGGING_LEVEL": "WARNING",
            "GIT_PYTHON_REFRESH": "quiet",
            "OPENBLAS_NUM_THREADS": "1",  # of whose memory there would be one a core
        }
    )
    if secret := os.environ.pop(MLFLOW_SECRET, None):
        use_secret(secret)


def _limit_memory() -> None:
    """Of what this process allocates, not of what it maps: a larger answer is a MemoryError, as any other error of
    MLflow's, and the rest of the machine goes on."""
    with suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = MOST_MEMORY if most == resource.RLIM_INFINITY else min(MOST_MEMORY, most)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
