"""What an error says about the storage of studies, read from error codes: a full disk, a locked or a lost database.

Only this module knows the error codes of the operating system, SQLite and PostgreSQL.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType

from dialin.errors import DatabaseError, StorageError

_FULL_ERRNO = (errno.ENOSPC, errno.EDQUOT)
_FULL_SQLITE = (sqlite3.SQLITE_FULL,)
_FULL_POSTGRESQL = ("53100",)  # disk_full
_LOCKED_SQLITE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_PRIMARY_CODE = 0xFF  # SQLite's extended codes carry the primary one in their low byte


class StorageErrors(AbstractContextManager[None]):
    """Turns the error of a full disk or of a locked database that leaves its block into a StorageError that says how to
    continue.

    A DatabaseError that is the cause of another error, such as Optuna's, is raised in its place. `resume`: the command
    that continues the study once the cause is gone.
    """

    def __init__(self, resume: str) -> None:
        self._resume = resume

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception):
            return
        if is_disk_full(error):
            raise StorageError(
                f"no space left on the disk; free some space, then continue with: {self._resume}"
            ) from error
        if (database_error := _behind(error, DatabaseError)) is not None:
            if database_error is error:
                return
            raise database_error from error
        if any(_sqlite_code(each) in _LOCKED_SQLITE for each in _chain(error)):
            raise StorageError(
                "another process keeps the database locked, perhaps a driver that was suspended while it wrote; end "
                f"that process, then continue with: {self._resume}"
            ) from error


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, or one that caused it, says that the disk or the account's quota is full."""
    return any(
        (isinstance(each, OSError) and each.errno in _FULL_ERRNO)
        or _sqlite_code(each) in _FULL_SQLITE
        or getattr(each, "sqlstate", None) in _FULL_POSTGRESQL
        for each in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and the errors that caused it, the newest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _behind(error: BaseException, kind: type[DatabaseError]) -> DatabaseError | None:
    return next((each for each in _chain(error) if isinstance(each, kind)), None)


def _sqlite_code(error: BaseException) -> int | None:
    code = error.sqlite_errorcode if isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorcode") else None
    return None if code is None else code & _PRIMARY_CODE
