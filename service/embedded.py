"""A whole server on one machine: the API with its page, MLflow, and a Ray cluster, each a process of its own.

All listen on loopback but for the API, which listens where it is told. What dies is started again; all end together,
each by its own id, when this ends; and when this is killed, their guards end them.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from service.api.serve import check_exposure
from service.cluster.local import local_shape
from service.errors import ConflictError, UsageError
from service.interrupts import Interrupts
from service.scratch import remove_scratch, scratch_for_ray
from service.settings import LOOPBACK, MLFLOW_PATH, MLFLOW_SECRET, OutputFolder, ServerSettings, Settings
from service.supervisor.part import Part, probe_http

_ROOT = str(Path(__file__).parents[1])
_OBJECT_STORE_BYTES = 80 * 2**20


@dataclass(frozen=True)
class Addresses:
    """Where the parts are."""

    api: str
    mlflow: str
    ray: str


def run_server(settings: Settings, server: ServerSettings, host: str, port: int, say: Callable[[str], None]) -> None:
    """Start what is not there yet, say where everything is, and keep it running until an interrupt.

    Raises UsageError for a port that is taken and for settings that are not safe, ConflictError when a server works on
    this folder already, ServerError when a part does not start.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    check_exposure(host, settings, server)
    if not _is_free(host, port):
        raise UsageError(f"port {port} on {host} is taken; name another with --port")
    folder = OutputFolder(settings.out).root / "server"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder), Interrupts() as interrupts, ExitStack() as stack:
        try:
            parts, addresses = _parts(settings, server, host, port, folder, stack)
            with interrupts.shield():
                stack.callback(_end_all, parts)
            for part in parts:
                say(f"starting {part.name} ...")
                part.start()
            for line in _welcome(settings, addresses):
                say(line)
            _keep_running(parts, say)
        except KeyboardInterrupt:
            interrupts.finish()  # what follows is short, and has to be done
            say("ending ...")


def _keep_running(parts: Sequence[Part], say: Callable[[str], None]) -> None:
    while True:
        for part in parts:
            if part.process is not None and part.process.poll() is not None:
                say(f"{part.name} ended (exit code {part.process.returncode}); starting it again")
                part.start()
        time.sleep(0.5)


def _end_all(parts: Sequence[Part]) -> None:
    for part in parts:
        part.ask_to_end()
    for part in parts:
        part.wait()


def _parts(
    settings: Settings, server: ServerSettings, host: str, port: int, folder: Path, stack: ExitStack
) -> tuple[list[Part], Addresses]:
    parts = []
    environment = _environment(settings)
    mlflow, ray = settings.mlflow_uri, server.ray_address
    environment.pop(MLFLOW_SECRET, None)
    if mlflow is None:
        mlflow_port = _free_port(5000)
        mlflow = f"http://127.0.0.1:{mlflow_port}"
        # Made once, so that a part that is started again knows it; in the environment, which only our account can read.
        environment[MLFLOW_SECRET] = secrets.token_urlsafe(32)
        parts.append(_mlflow(settings, mlflow_port, environment, folder))
    environment["DIALIN_MLFLOW_URI"] = mlflow
    if ray is None:
        ray_port = _free_port(8265)
        ray = f"http://127.0.0.1:{ray_port}"
        environment.pop("RAY_ADDRESS", None)  # somebody else's cluster
        environment |= {
            # Said outright: a token file in someone's home would otherwise decide it.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # for this machine only, so Ray listens on loopback only
        }
        parts.append(_ray(ray_port, _for_drivers(environment, settings), folder, stack))
    environment["DIALIN_RAY_ADDRESS"] = ray
    shown = host if host not in ("0.0.0.0", "::") else "127.0.0.1"
    api = f"http://{shown}:{port}"
    if MLFLOW_SECRET in environment:
        mlflow = f"{api}{MLFLOW_PATH}/"
    command = [sys.executable, "-P", "-m", "service.api.serve", "--host", host, "--port", str(port)]
    named = f"127.0.0.1:{port}" if shown == "127.0.0.1" else f"{shown}:{port}"
    health = f"http://{named}/healthz"
    parts.append(Part("the API", command, environment, folder / "api.log", port, lambda: probe_http(health)))
    return parts, Addresses(api, mlflow, ray)


def _for_drivers(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Without the server's own access to the database where drivers run other people's code: they are given theirs."""
    hidden = {"DIALIN_DATABASE_URL"} if settings.allow_code else set()
    return {name: value for name, value in environment.items() if name not in hidden}


def _environment(settings: Settings) -> dict[str, str]:
    """Ours, with what all parts have to agree on; `python` is this one, and our packages are found first."""
    paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    directly = ",".join([*filter(None, [os.environ.get("NO_PROXY", os.environ.get("no_proxy"))]), *LOOPBACK])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.pathsep.join(programs),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": directly,  # the parts' secrets for each other are for no proxy's eyes
        "no_proxy": directly,
        "DIALIN_OUT": str(settings.out),
        "DIALIN_DATA_DIR": str(settings.data_dir),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _mlflow(settings: Settings, port: int, environment: Mapping[str, str], folder: Path) -> Part:
    out, secret = OutputFolder(settings.out), environment[MLFLOW_SECRET]
    command = [
        *(sys.executable, "-P", "-m", "service.tracking.mlflow_server", "--port", str(port)),
        *("--database", str(out.mlflow_database), "--artifacts", str(out.mlflow_artifacts)),
    ]
    address = f"http://127.0.0.1:{port}"
    return Part(
        "MLflow", command, environment, folder / "mlflow.log", port, lambda: probe_http(f"{address}/health", secret)
    )


def _ray(port: int, environment: Mapping[str, str], folder: Path, stack: ExitStack) -> Part:
    temporary = scratch_for_ray("dialin-head-")
    stack.callback(remove_scratch, temporary)
    shape = local_shape()
    command = [
        *(sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *("--port", "0", "--dashboard-host", "127.0.0.1", "--dashboard-port", str(port)),
        *("--dashboard-agent-listen-port", "0", "--min-worker-port", "0", "--max-worker-port", "0"),
        *("--ray-client-server-port", str(_free_port()), "--temp-dir", str(temporary / "ray")),
        *("--num-cpus", str(int(max(1, shape.cpus))), "--num-gpus", str(int(shape.gpus))),
        *("--object-store-memory", str(_OBJECT_STORE_BYTES)),
    ]
    token = environment["RAY_AUTH_TOKEN"]
    version = f"http://127.0.0.1:{port}/api/version"
    return Part("Ray", command, dict(environment), folder / "ray.log", port, lambda: probe_http(version, token))


def _welcome(settings: Settings, addresses: Addresses) -> Iterator[str]:
    yield f"dialin is up; its data lies in {settings.out}"
    yield f"  page      {addresses.api}"
    yield f"  API       {addresses.api}/api/v1"
    yield f"  MLflow    {addresses.mlflow}"
    yield f"  Ray       {addresses.ray}"
    yield f"submit a study with:  dialin submit digits --server {addresses.api}"
    yield "Ctrl-C ends all of it; studies that run go on when it is up again"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConflictError(f"a server works on {folder.parent} already") from None
    try:
        yield
    finally:
        lock.release()


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _free_port(wanted: int = 0) -> int:
    """That one where it is free, else any."""
    if wanted and _is_free("127.0.0.1", wanted):
        return wanted
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
