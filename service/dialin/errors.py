"""Every error that dialin raises on purpose, as one tree.

    DialinError                 code, HTTP status, exit code of the command line
    ├── SpecError               a search space or an argument is wrong: every problem, by path and line
    ├── UsageError              a command or a call was used wrongly
    ├── DataError               a data set is missing, damaged or of the wrong shape
    ├── FunctionError           a person's own training function is missing, or raised
    ├── BundleError             an archive of a person's files cannot be made, or must not be unpacked
    ├── NotFoundError           no study or trial has this name
    ├── ConflictError           the study is in a state that does not allow this
    │   ├── FencedError         another driver has taken the study over
    │   ├── NoResultError       the study has no best configuration (yet)
    │   └── UnreadableError     what is stored of a study is damaged, or of another version
    ├── UnauthorizedError       the server does not know who is asking
    ├── ForbiddenError          the server knows who is asking, and they may not do this
    ├── RateLimitedError        too many requests, or too many studies at a time
    ├── TooLargeError           more was sent than the server takes
    ├── ClusterError            the cluster that trained is gone
    ├── StorageError            nothing can be written: a disk is full
    │   └── DatabaseError       the studies' database is damaged, gone, or of another version
    └── ServerError             a server failed, or a server behind it did
        ├── ServerUnreachableError  the server does not answer: it may later
        ├── ProtocolError           the answer is not one of a dialin server: asking again does not help
        └── ServerTimeoutError      a server behind the one that was asked does not answer in time

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
    """One thing that is wrong with a document."""

    path: str
    """Where: the keys from the top, joined by dots, list items by their number from 0; empty: the whole document."""
    message: str
    """What is wrong, with the value and what is allowed."""
    line: int | None = None
    """The line, from 1; None for what has none, such as an option of the command line."""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


class DialinError(Exception):
    """Base of the tree. The message names the thing, the value and what is allowed."""

    code: ClassVar[str] = "error"
    """The name of the class in an answer of the server, unique in the tree."""
    status: ClassVar[int] = 500
    """The HTTP status of that answer."""
    exit_code: ClassVar[int] = 1
    """The exit code of the command line: 2 where the command itself was wrong, otherwise 1."""


class SpecError(DialinError):
    """A specification is wrong.

    problems: everything that was found, not only the first.
    source: the file or the shipped space, as the person named it; empty where there is none.
    """

    code = "invalid_spec"
    status = 422
    exit_code = 2

    def __init__(self, problems: Sequence[Problem], source: str = "") -> None:
        self.problems = tuple(problems)
        self.source = source
        prefix = f"{source}: " if source else ""
        super().__init__("\n".join(f"{prefix}{problem}" for problem in self.problems))


class UsageError(DialinError):
    """A command or a call was used wrongly: an option, a value, a combination."""

    code = "usage"
    status = 400
    exit_code = 2


class DataError(DialinError):
    """A data set is missing, damaged, or of the wrong shape."""

    code = "data"
    status = 422
    exit_code = 1


class FunctionError(DialinError):
    """A person's own training function is missing, has the wrong signature, or raised."""

    code = "function"
    status = 422
    exit_code = 1


class BundleError(DialinError):
    """An archive of a person's files cannot be made, or must not be unpacked."""

    code = "bundle"
    status = 422
    exit_code = 2


class NotFoundError(DialinError):
    """No study or trial has this name or id."""

    code = "not_found"
    status = 404
    exit_code = 2


class ConflictError(DialinError):
    """The study is in a state that does not allow this."""

    code = "conflict"
    status = 409
    exit_code = 1


class FencedError(ConflictError):
    """Another driver has taken the study over; this one must write no more."""

    code = "fenced"


class NoResultError(ConflictError):
    """The study has no best configuration, or none yet."""

    code = "no_result"


class UnreadableError(ConflictError):
    """What is stored of a study is damaged, or was written by another version of dialin."""

    code = "unreadable"


class UnauthorizedError(DialinError):
    """The server does not know who is asking: the token is missing, unknown or expired."""

    code = "unauthorized"
    status = 401
    exit_code = 2


class ForbiddenError(DialinError):
    """The server knows who is asking, and they may not do this."""

    code = "forbidden"
    status = 403
    exit_code = 2


class RateLimitedError(DialinError):
    """Too many requests, or too many studies at a time. `retry_after`: seconds until it is worth another try."""

    code = "rate_limited"
    status = 429

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooLargeError(DialinError):
    """More was sent than the server takes."""

    code = "too_large"
    status = 413
    exit_code = 2


class ClusterError(DialinError):
    """The cluster that trained is gone, or does not answer."""

    code = "cluster"
    status = 503


class StorageError(DialinError):
    """Nothing can be written, for example because a disk is full."""

    code = "storage"
    status = 507


class DatabaseError(StorageError):
    """The studies' database is damaged, gone, or of another version."""

    code = "database"
    status = 500


class ServerError(DialinError):
    """A server cannot be reached, or its answer cannot be understood."""

    code = "server"
    status = 502


class ServerUnreachableError(ServerError):
    """The client got no answer: no connection, a connection that broke, a timeout, or a gateway that says so."""

    code = "server_unreachable"
    status = 502


class ProtocolError(ServerError):
    """The client got an answer that it cannot read. The address may be another service's, or the versions differ."""

    code = "protocol"
    status = 502


class ServerTimeoutError(ServerError):
    """A server behind the one that was asked does not answer in time."""

    code = "server_timeout"
    status = 504


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn what stored data of a wrong shape raises into an UnreadableError; `what` is the subject of its message."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise UnreadableError(f"{what} cannot be read: {type(error).__name__}: {error}") from error


def by_code(code: str) -> type[DialinError]:
    """The class of the tree that has this code; DialinError for a code that this dialin does not know."""
    pending: list[type[DialinError]] = [DialinError]  # a walk, so that no table can lack a class
    while pending:
        cls = pending.pop()
        if cls.code == code:
            return cls
        pending.extend(cls.__subclasses__())
    return DialinError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the nearest known name, or all that are allowed."""
    names = sorted(known)
    # Case is not what is misspelt: Momentum means momentum.
    by_case = {each.casefold(): each for each in names}
    near = [by_case[each] for each in difflib.get_close_matches(name.casefold(), by_case, n=1, cutoff=0.6)]
    return f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(names)}"
