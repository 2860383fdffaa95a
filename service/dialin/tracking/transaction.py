"""Many calls to a local MLflow store as one transaction.

MLflow opens a dozen sessions a run, each with its own commit and settings, and sends each row on by itself; half of the
time of writing a trial went there. Its store takes every session from one factory, so that while this is entered, all
calls get the same one, whose rows are sent together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class UndoneError(Exception):
    """MLflow wanted to undo one call (a point that is there already, say), which would undo those before it as well."""


@contextmanager
def one_transaction(client: Any) -> Iterator[Callable[[], None] | None]:
    """Calls of an MlflowClient take effect together at the end, or none of them does when one raises.

    Yields what is to be called before a call that depends on earlier ones: until then these may not see what was
    written. None where it is no transaction: the store is behind a server, or is none of MLflow's SQL stores. What is
    raised within comes out as an MlflowException; for an UndoneError, the calls may succeed one by one. Not thread
    safe."""
    store: Any = getattr(getattr(client, "_tracking_client", None), "store", None)
    make_session = getattr(store, "ManagedSessionMaker", None)
    if make_session is None:
        yield None
        return
    with make_session(read_only=False) as session:

        @contextmanager
        def shared(read_only: bool = True) -> Iterator[Any]:  # noqa: ARG001  as the store calls it
            yield session

        def undo() -> None:
            raise UndoneError("one of the calls was to be undone")

        def commit() -> None:
            """The store commits in the midst of a call, too."""

        session.autoflush, session.commit, session.rollback = False, commit, undo
        store.ManagedSessionMaker = shared
        try:
            yield session.flush
        finally:
            store.ManagedSessionMaker = make_session
            del session.commit, session.rollback
