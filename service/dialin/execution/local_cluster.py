"""A Ray cluster on this machine that lives as long as one command."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dialin.errors import ClusterError
from dialin.planning.plan import ClusterShape
from dialin.supervisor.scratch_dir import remove_scratch, scratch_for_ray

_MODE = "RAY_AUTH_MODE"
_OBJECT_STORE_BYTES = 80 * 1024 * 1024
"""The minimum that Ray accepts. Trials share their data through the page cache instead."""
_TOKEN = secrets.token_hex(32)
"""The same for all clusters of this process, because Ray reads it once."""

RAY_DEFAULTS: Mapping[str, str] = {
    # Documented by Ray.
    "RAY_USAGE_STATS_ENABLED": "0",  # no statistics about a study are sent to Ray's authors
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a user's function stay valid
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the default of later versions; without it Ray warns of that change
    "RAY_ROTATION_MAX_BYTES": str(8 * 2**20),  # of each of Ray's logs; its default is 512 MiB, with five backups
    "RAY_ROTATION_BACKUP_COUNT": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # only Tune's older output can be switched off completely
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # files that nothing reads, at 10 ms a trial
    "TUNE_FORCE_TRIAL_CLEANUP_S": "60",  # after this time the resources of a worker that does not end are freed
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # snapshots of Tune's state: a resume reads the study's own storage
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the driver ends the study on Ctrl-C, within seconds
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "3600",  # the driver itself reports that trials wait for resources
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the driver stores and shows them
    # Undocumented for Linux; without it a local cluster listens on all interfaces, and no public setting prevents that.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
"""Environment variables of Ray and Tune with their values for a study. A variable that is set keeps its value."""


def local_shape() -> ClusterShape:
    """Return the processors that this process may use, and the NVIDIA GPUs that CUDA_VISIBLE_DEVICES does not hide."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = Path("/proc/driver/nvidia/gpus")
    present = len(list(devices.iterdir())) if devices.is_dir() else 0
    if visible is not None:
        present = min(present, len([part for part in visible.split(",") if part.strip() not in ("", "-1")]))
    return ClusterShape(cpus=float(cpus), gpus=float(present))


def set_ray_defaults() -> None:
    """Set `RAY_DEFAULTS` in the environment of this process. Call it before Ray is imported, which reads them then."""
    for name, value in RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)


@contextmanager
def local_cluster(shape: ClusterShape) -> Iterator[None]:
    """Start a Ray cluster that shares no port, folder or token with others, and connect to it; stop it after the block.

    Raises ClusterError if the cluster does not start, and if the process has used Ray before in a way that does not
    allow the cluster's authentication.
    """
    set_ray_defaults()
    _require_token()
    import ray

    if ray.is_initialized():
        raise ClusterError("this process is connected to a Ray cluster already; call ray.shutdown() first")
    folder = scratch_for_ray("dialin-ray-")
    tune_log = logging.getLogger("ray.tune")
    level = tune_log.level
    try:
        _start(ray, shape, folder / "ray")
        tune_log.setLevel(logging.ERROR)
        yield
    finally:
        ray.shutdown()
        tune_log.setLevel(level)
        remove_scratch(folder)


def _require_token() -> None:
    """Make the cluster require a token, because every account that can connect to a cluster can run code on it.

    The mode is always set, because a token file in the home folder would otherwise decide it. Ray reads it when it is
    imported. If a program has imported Ray already, the mode stays unset: `ray.init` then requires a token by default,
    and uses the one in the environment.
    """
    if "ray" not in sys.modules:
        os.environ |= {_MODE: "token", "RAY_AUTH_TOKEN": _TOKEN}
        return
    if os.environ.get(_MODE, "token") != "token":
        raise ClusterError(
            f"Ray was imported with {_MODE}={os.environ[_MODE]}, and dialin's cluster requires a token; unset {_MODE} "
            "before the program imports ray"
        )
    # A token that the program has set stays, because Ray may have read it.
    os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)


def _start(ray: Any, shape: ClusterShape, folder: Path) -> None:
    """Start the cluster. Raises ClusterError with Ray's message if it does not start."""
    try:
        ray.init(
            address="local",
            num_cpus=int(max(1, shape.cpus)),
            num_gpus=int(shape.gpus),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ClusterError(f"Ray did not start on this machine: {str(error).strip().partition(chr(10))[0]}") from error
    if os.environ.get(_MODE) != "token":
        raise ClusterError(
            "this version of Ray starts a cluster without a token where Ray was imported before dialin; set "
            f"{_MODE}=token before the program imports ray"
        )
