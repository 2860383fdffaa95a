"""Every error that dialin raises on purpose, as one tree.

    DialinError                 code, HTTP status, exit code of the command line
    ├── SpecError               a search space or an argument is wrong: every problem, by path and line
    ├── UsageError              a command or a call was used wrongly
    ├── DataError               a data set is missing, damaged or of the wrong shape
    ├── FunctionError           a person's own training function is missing, or raised
    ├── BundleError             an archive of a person's files is not one that may be unpacked
    ├── NotFoundError           no study or trial of that name
    ├── ConflictError           the study is not in a state that allows this
    │   ├── FencedError         another driver has taken the study over
    │   ├── NoResultError       the study has no best configuration (yet)
    │   └── UnreadableError     what is stored of a study is damaged, or of another version
    ├── UnauthorizedError       a server does not know who is asking
    ├── ForbiddenError          it does, and they may not do this
    ├── RateLimitedError        too many requests, or too many studies at a time
    ├── TooLargeError           more was sent than is taken
    ├── ClusterError            the cluster that trained is gone
    ├── StorageError            nothing can be written: a disk is full
    │   └── DatabaseError       the studies' database is damaged, gone, or of another version
    ├── ServerError             a server cannot be reached, or answers what cannot be understood
    │   └── ServerTimeoutError  a server behind the one that was asked does not answer in time
    └── StudyFailedError        the study ended without a result

Server and client raise the same classes: `by_code` gives the class back from the code sent over the wire.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a document: where (dotted path, line from 1) and what, with what is allowed."""

    path: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


class DialinError(Exception):
    """Base of the tree. The message names the thing, the value and what is allowed."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1


class SpecError(DialinError):
    """A specification is wrong. `problems` holds everything found, not only the first."""

    code = "invalid_spec"
    status = 422
    exit_code = 2

    def __init__(self, problems: Sequence[Problem], source: str = "") -> None:
        self.problems = tuple(problems)
        self.source = source
        prefix = f"{source}: " if source else ""
        super().__init__("\n".join(f"{prefix}{problem}" for problem in self.problems))


class UsageError(DialinError):
    code = "usage"
    status = 400
    exit_code = 2


class DataError(DialinError):
    code = "data"
    status = 422
    exit_code = 1


class FunctionError(DialinError):
    code = "function"
    status = 422
    exit_code = 1


class BundleError(DialinError):
    code = "bundle"
    status = 422
    exit_code = 2


class NotFoundError(DialinError):
    code = "not_found"
    status = 404
    exit_code = 2


class ConflictError(DialinError):
    code = "conflict"
    status = 409
    exit_code = 1


class FencedError(ConflictError):
    code = "fenced"


class NoResultError(ConflictError):
    code = "no_result"


class UnreadableError(ConflictError):
    code = "unreadable"


class UnauthorizedError(DialinError):
    code = "unauthorized"
    status = 401
    exit_code = 2


class ForbiddenError(DialinError):
    code = "forbidden"
    status = 403
    exit_code = 2


class RateLimitedError(DialinError):
    """`retry_after`: seconds until it is worth another try."""

    code = "rate_limited"
    status = 429

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooLargeError(DialinError):
    code = "too_large"
    status = 413
    exit_code = 2


class ClusterError(DialinError):
    code = "cluster"
    status = 503


class StorageError(DialinError):
    code = "storage"
    status = 507


class DatabaseError(StorageError):
    code = "database"
    status = 500


class ServerError(DialinError):
    code = "server"
    status = 502


class ServerTimeoutError(ServerError):
    code = "server_timeout"
    status = 504


class StudyFailedError(DialinError):
    code = "study_failed"
    status = 500
    exit_code = 1


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Have what stored data of a wrong shape raises come out as an UnreadableError that says what could not be read."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise UnreadableError(f"{what} cannot be read: {type(error).__name__}: {error}") from error


def by_code(code: str) -> type[DialinError]:
    """The class of the tree that has this code; DialinError for a code nobody knows."""
    pending: list[type[DialinError]] = [DialinError]
    while pending:
        cls = pending.pop()
        if cls.code == code:
            return cls
        pending.extend(cls.__subclasses__())
    return DialinError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of an error about an unknown name: the nearest known one, else all that is allowed."""
    names = sorted(known)
    by_case = {each.casefold(): each for each in names}
    near = [by_case[each] for each in difflib.get_close_matches(name.casefold(), by_case, n=1, cutoff=0.6)]
    return f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(names)}"
