"""The command line, in a process that kills itself before its N-th write: killed_driver.py N run SPEC ...

A write is a call that changes the Optuna storage, the table of studies or the spool."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import optuna

from service import cli
from service.store.studies import Studies
from service.tracking.spool import Spool

WRITES = {
    optuna.storages.RDBStorage: (
        "create_new_study", "create_new_trial", "set_trial_intermediate_value", "set_trial_state_values",
        "set_trial_user_attr",
    ),
    Studies: ("create", "go_on", "end"),
    Spool: ("append",),
}  # fmt: skip


def main() -> int:
    left = int(sys.argv[1])

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*arguments, **named)

        return call

    for owner, names in WRITES.items():
        for name in names:
            setattr(owner, name, counted(getattr(owner, name)))
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
