"""A Ray cluster for one command: started on this machine, for this process, gone with it."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dialin.errors import ClusterError
from dialin.planning.plan import ClusterShape
from dialin.supervisor.scratch_dir import remove_scratch, scratch_for_ray

_OBJECT_STORE_BYTES = 80 * 1024 * 1024  # Ray's least; trials share their data through the page cache
_TOKEN = secrets.token_hex(32)  # one a process: Ray reads it once
_QUIET = {
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a person's function finds its files as it does without Ray
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray warns that it will stop hiding GPUs from CPU tasks
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "60",  # a worker that does not come to its end keeps its place no longer
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the study's own storage is what a resume reads
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt ends the study through the driver, within seconds
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "3600",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the driver keeps and shows them
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # for this machine only, so Ray listens on loopback only
    "RAY_prestart_worker_first_driver": "0",  # they lack the environment that Tune gives its trials, and end unused
    "RAY_ROTATION_MAX_BYTES": str(8 * 2**20),  # of each log of Ray's own; its default are 512 MiB, five times
    "RAY_ROTATION_BACKUP_COUNT": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # the older output can be silenced altogether
}


def local_shape() -> ClusterShape:
    """The processors this process may use, and the NVIDIA GPUs that the driver shows, less those hidden from it."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = Path("/proc/driver/nvidia/gpus")
    present = len(list(devices.iterdir())) if devices.is_dir() else 0
    if visible is not None:
        present = min(present, len([part for part in visible.split(",") if part.strip() not in ("", "-1")]))
    return ClusterShape(cpus=float(cpus), gpus=float(present))


def _have_the_token_read() -> None:
    """Ray reads the mode and the token when it is imported, which may have been long before."""
    if "ray" in sys.modules:
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        Config.initialize("")  # as Ray itself does where it chooses the mode
        AuthenticationTokenLoader.instance().reset_cache()


def be_quiet() -> None:
    """Have Ray do without what a study has no use for. Before Ray is imported."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def local_cluster(shape: ClusterShape) -> Iterator[None]:
    """A Ray cluster of its own ports, folder and token, connected to; ended, with all it started, on the way out."""
    be_quiet()
    # Said outright, because a token file in someone's home would otherwise decide it for the whole machine.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = _TOKEN
    _have_the_token_read()
    import ray

    folder = scratch_for_ray("dialin-ray-")
    try:
        _start(ray, shape, folder / "ray")
        yield
    finally:
        ray.shutdown()
        remove_scratch(folder)


def _start(ray: Any, shape: ClusterShape, folder: Path) -> None:
    """Raises ClusterError, with what Ray says, when it does not start."""
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
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
