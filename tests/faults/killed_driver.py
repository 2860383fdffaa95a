"""The command line, in a process that kills itself before its N-th write: killed_driver.py N run SPEC ...

A write is a commit of a transaction that changes something, in Optuna's tables or ours, or of events to the study's event log."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import sqlalchemy as sa

from dialin.cli import main as cli
from dialin.events.log import EventLog
from dialin.events.types import Event

CHANGES = ("INSERT", "UPDATE", "DELETE", "REPLACE")


class Countdown:
    """Ends the process, as kill -9 does, before the write of that number."""

    def __init__(self, writes: int) -> None:
        self._left = writes

    def write(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def statement(self, connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().upper().startswith(CHANGES):
            connection.info["changed"] = True

    def commit(self, connection: sa.Connection) -> None:
        if connection.info.pop("changed", False):
            self.write()


def main() -> int:
    countdown = Countdown(int(sys.argv[1]))
    sa.event.listen(sa.Engine, "before_cursor_execute", countdown.statement)
    sa.event.listen(sa.Engine, "commit", countdown.commit)
    append = EventLog.append

    def counted(log: EventLog, *events: Event) -> None:
        countdown.write()
        append(log, *events)

    EventLog.append = counted  # type: ignore[method-assign]
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
