"""The internals of Ray Tune that dialin uses, one function for each of them.

`tests/execution/test_upstream.py` has a canary test for each function, which names what upstream changed when it fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.tune.experiment import Trial as TuneTrial


def actor_of(trial: TuneTrial) -> Any | None:
    """Return the handle of the actor that trains a trial; None while the trial waits for a worker.

    Tune has no public method for it. The actor has to be killed to end a process that hangs in native code.
    """
    return trial.temporary_state.ray_actor


def error_of(trial: TuneTrial) -> Exception | None:
    """Return the exception that ended a trial; None if Tune has kept only its text.

    An exception of the training arrives as RayTaskError, the end of a process or a node as RayActorError. The public
    `Trial.get_pickled_error` reads from the storage path, to which the file is copied only later.
    """
    return cloudpickle.loads(file.read_bytes()) if (file := _existing(trial.pickled_error_file)) else None


def error_text_of(trial: TuneTrial) -> str:
    """Return the traceback of the exception that ended a trial; the public `Trial.get_error` also reads a file that may
    not exist yet."""
    return file.read_text(errors="replace") if (file := _existing(trial.error_file)) else "unknown error"


def _existing(file: str | None) -> Path | None:
    return Path(file) if file and Path(file).exists() else None
