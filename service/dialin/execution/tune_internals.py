"""What dialin uses of Ray Tune beyond its public API, one function for each part.

`tests/execution/test_upstream.py` has a canary test for each function, which names what upstream changed when it fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.tune.experiment import Trial as TuneTrial


def actor_of(trial: TuneTrial) -> Any | None:
    """Return the handle of the actor that trains a trial; None while the trial waits for a worker.

    Tune has no public way to it. A process that hangs in native code ends only when its actor is killed.
    """
    return trial.temporary_state.ray_actor


def error_of(trial: TuneTrial) -> Exception | None:
    """Return the exception that ended a trial; None where Tune has kept only its text.

    A person's exception arrives as RayTaskError, the end of a process or a node as RayActorError. The public
    `Trial.get_pickled_error` reads from the storage path, to which the file is copied only later.
    """
    return cloudpickle.loads(file.read_bytes()) if (file := _existing(trial.pickled_error_file)) else None


def error_text_of(trial: TuneTrial) -> str:
    """Return the traceback of the exception that ended a trial; the public `Trial.get_error` reads too early too."""
    return file.read_text(errors="replace") if (file := _existing(trial.error_file)) else "unknown error"


def _existing(file: str | None) -> Path | None:
    return Path(file) if file and Path(file).exists() else None
