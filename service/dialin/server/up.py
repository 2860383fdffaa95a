"""`dialin up`: a complete server on one machine. Its services are the API with the web page, MLflow and a Ray cluster.

Each service is a separate process. All listen on loopback, except the API, whose address is an argument. A service that
dies, loses its guard or fails its health checks is restarted. When this process ends, it ends all services, each by its
process id; if it is killed, their guards do so.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from dialin.errors import ConflictError, DialinError
from dialin.execution.head import HeadHealth
from dialin.execution.local_cluster import local_shape
from dialin.paths import OutputFolder
from dialin.server.serve import check_exposure
from dialin.settings import LOOPBACK, MLFLOW_PATH, MLFLOW_SECRET, ServerSettings, Settings
from dialin.store.database_errors import check_mlflow_file
from dialin.store.migrate import upgrade
from dialin.store.output_folder import open_output
from dialin.store.submissions import Submissions
from dialin.study_flow.signals import Interrupts
from dialin.supervisor.commands import module_command, program_path
from dialin.supervisor.health_timeout import LEAST_PROBES
from dialin.supervisor.ports import free_port, listen
from dialin.supervisor.processes import MARK, adopt_orphans, end_marked
from dialin.supervisor.rotating import RotatingLog
from dialin.supervisor.scratch_dir import remove_scratch, scratch_for_ray
from dialin.supervisor.service import PROBE_SECONDS, Service, probe_http
from dialin.supervisor.supervise import Supervisor

_OBJECT_STORE_BYTES = 80 * 2**20
_UP_LOG_BYTES = 2**20
_RAY = {
    "RAY_AUTH_MODE": "token",  # without it, a token file in the home folder would decide the mode
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # a cluster of one machine, which listens on loopback only
    "RAY_ROTATION_MAX_BYTES": str(8 * 2**20),  # of each of Ray's logs; its default is 512 MiB, with five backups
    "RAY_ROTATION_BACKUP_COUNT": "1",
}


@dataclass
class Addresses:
    """The addresses of the services. They change when a service has to move to another port."""

    api: str
    mlflow: str
    ray: str


def run_server(settings: Settings, server: ServerSettings, host: str, port: int, say: Callable[[str], None]) -> None:
    """Start the services for which the settings name no address, and keep them running until an interrupt.

    `say` is called with each line for the terminal: what is done, and the addresses. The lines are also written to
    `server/up.log` in the output folder.

    Raises UsageError for a port that is taken, a folder that cannot be used and settings that are not safe,
    ConflictError if another server is running on this folder, DatabaseError for a database that is damaged or of
    another version, and ServerError if a service does not start.
    """
    open_output(settings, say)
    if settings.upgrade_database:
        upgrade(settings.database)
    with Submissions(settings.database) as submissions:
        submissions.by_state()  # a database that cannot be read is reported before any service starts
    if settings.mlflow_uri is None:
        check_mlflow_file(OutputFolder(settings.out).mlflow_database)
    check_exposure(host, settings, server)
    folder = OutputFolder(settings.out).server
    folder.mkdir(mode=0o700, exist_ok=True)
    with _locked(folder), Interrupts() as interrupts, ExitStack() as stack:
        log = RotatingLog(folder / "up.log", _UP_LOG_BYTES)
        stack.callback(log.close)
        tell = _logged(say, log)
        try:
            _run(settings, server, (host, port), folder, stack, interrupts, tell)
        except KeyboardInterrupt:
            interrupts.finish()  # a second Ctrl-C must not interrupt the end of the services, which takes seconds
            tell("stopping ...")
        except DialinError as error:
            _logged(lambda _text: None, log)(f"stopping: {error}")  # the caller prints the error
            raise


def _run(
    settings: Settings,
    server: ServerSettings,
    at: tuple[str, int],
    folder: Path,
    stack: ExitStack,
    interrupts: Interrupts,
    say: Callable[[str], None],
) -> None:
    """Start all services and keep them running until an interrupt."""
    adopt_orphans()
    mark = _end_left_over(folder, say)
    socket = stack.enter_context(listen(*at))
    makers, addresses = _makers(settings, server, at, socket.fileno(), mark, stack)
    supervisor = Supervisor(makers, server.health_timeout_seconds, say)
    with interrupts.shield():
        stack.callback(supervisor.end)
    supervisor.start()
    for line in _welcome(settings, addresses):
        say(line)
    supervisor.keep_running()


def _end_left_over(folder: Path, say: Callable[[str], None]) -> str:
    """Write a new mark for the processes of this server into its folder, and return it. First end the processes with
    the previous mark, which are left if an earlier server was killed together with its guards."""
    note = folder / "mark"
    if note.exists() and (before := note.read_text().strip()) and (left := end_marked(before, guards_too=True)):
        say(f"ended the processes ({left}) that an earlier server left when it was killed")
    mark = secrets.token_hex(16)
    note.touch(mode=0o600)
    note.write_text(mark)
    return mark


def _makers(
    settings: Settings,
    server: ServerSettings,
    at: tuple[str, int],
    descriptor: int,
    mark: str,
    stack: ExitStack,
) -> tuple[list[Callable[[], Service]], Addresses]:
    """Return, in the order of starts, a function for each service that creates it, and the addresses.

    A service that is created again writes its new address into `environment`, which the later services are given.
    """
    folder, makers = OutputFolder(settings.out).server, []
    answer_seconds = min(PROBE_SECONDS, server.health_timeout_seconds / LEAST_PROBES)
    environment = {**_environment(settings), MARK: mark}
    addresses = Addresses(_url(*at), settings.mlflow_uri or "", server.ray_address or "")
    environment |= {"DIALIN_MLFLOW_URI": addresses.mlflow, "DIALIN_RAY_ADDRESS": addresses.ray}

    def make_mlflow() -> Service:
        port = free_port(5000)
        environment["DIALIN_MLFLOW_URI"] = f"http://127.0.0.1:{port}"
        return _mlflow(settings, port, environment, folder)

    def make_ray() -> Service:
        port = free_port(8265)
        addresses.ray = environment["DIALIN_RAY_ADDRESS"] = f"http://127.0.0.1:{port}"
        return _ray(port, _for_drivers(environment, settings), folder, temporary, answer_seconds)

    environment.pop(MLFLOW_SECRET, None)
    if settings.mlflow_uri is None:
        # The same for all starts, so that a restarted service knows it. Only this account can read the environment.
        environment[MLFLOW_SECRET] = secrets.token_urlsafe(32)
        addresses.mlflow = f"{addresses.api}{MLFLOW_PATH}/"
        makers.append(make_mlflow)
    if server.ray_address is None:
        environment.pop("RAY_ADDRESS", None)  # it names another cluster, which Ray would join instead
        environment |= _RAY | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        temporary = scratch_for_ray("dialin-head-")
        stack.callback(remove_scratch, temporary)
        makers.append(make_ray)
    makers.append(lambda: _api(at, descriptor, environment, folder, answer_seconds))
    mask = OutputFolder(settings.out).mask
    return [_with_limits(make, server.log_bytes, mask) for make in makers], addresses


def _with_limits(make: Callable[[], Service], log_bytes: int, mask: int) -> Callable[[], Service]:
    """Return `make` with the bound of the service's log, and with a umask that closes its files to other accounts.

    Ray keeps the umask of this process: its own folder is closed anyway, and the training functions that run in it
    create files for their users.
    """

    def make_limited() -> Service:
        service = make()
        return replace(service, log_bytes=log_bytes, umask=-1 if service.name == "Ray" else mask)

    return make_limited


def _url(host: str, port: int) -> str:
    """Return the URL at which this machine reaches the API."""
    name = host if host not in ("0.0.0.0", "::") else "127.0.0.1"
    return f"http://{f'[{name}]' if ':' in name else name}:{port}"


def _for_drivers(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return the environment for drivers. If they run code that people send, it lacks the server's access to the
    database, and each driver gets access to its own study instead (`store.driver_roles`)."""
    hidden = {"DIALIN_DATABASE_URL"} if settings.allow_code else set()
    return {name: value for name, value in environment.items() if name not in hidden}


def _environment(settings: Settings) -> dict[str, str]:
    """Return the environment of every service: that of this process, with the settings that all services share.

    Its PATH leads to this interpreter first, because Ray starts jobs by the name `python`.
    """
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    no_proxy = ",".join([*filter(None, [os.environ.get("NO_PROXY", os.environ.get("no_proxy"))]), *LOOPBACK])
    return {
        **os.environ,
        "PATH": os.pathsep.join(programs),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": no_proxy,  # a proxy must not see the secrets that the services send to each other
        "no_proxy": no_proxy,
        "DIALIN_OUT": str(settings.out),
        "DIALIN_DATA_DIR": str(settings.data_dir),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _mlflow(settings: Settings, port: int, environment: Mapping[str, str], folder: Path) -> Service:
    out, secret = OutputFolder(settings.out), environment[MLFLOW_SECRET]
    command = module_command("dialin.server.mlflow_server", "--port", str(port))
    command += ["--database", str(out.mlflow_database), "--artifacts", str(out.mlflow_artifacts)]
    address = f"http://127.0.0.1:{port}"
    return Service(
        "MLflow", command, environment, folder / "mlflow.log", port, lambda: probe_http(f"{address}/health", secret)
    )


def _ray(port: int, environment: Mapping[str, str], folder: Path, temporary: Path, answer_seconds: float) -> Service:
    for session in sorted((temporary / "ray").glob("session_2*"))[:-1]:  # the sessions before the last one
        shutil.rmtree(session, ignore_errors=True)
    shape, inside = local_shape(), temporary / "ray"
    command = [
        *(program_path("ray", "ray[default]"), "start", "--head", "--block", "--disable-usage-stats"),
        # Without --include-dashboard Ray ignores a failed start of its dashboard, and the service is never ready.
        *("--port", "0", "--include-dashboard", "true", "--dashboard-host", "127.0.0.1", "--dashboard-port", str(port)),
        *("--dashboard-agent-listen-port", "0", "--min-worker-port", "0", "--max-worker-port", "0"),
        *("--ray-client-server-port", str(free_port()), "--temp-dir", str(inside)),
        *("--num-cpus", str(int(max(1, shape.cpus))), "--num-gpus", str(int(shape.gpus))),
        *("--object-store-memory", str(_OBJECT_STORE_BYTES)),
    ]
    health = HeadHealth(f"http://127.0.0.1:{port}", environment["RAY_AUTH_TOKEN"], inside, answer_seconds)
    return Service("Ray", command, dict(environment), folder / "ray.log", port, health)


def _api(
    at: tuple[str, int], descriptor: int, environment: Mapping[str, str], folder: Path, answer_seconds: float
) -> Service:
    """Return the API's service, which inherits the socket that it listens on."""
    host, port = at
    command = module_command("dialin.server.serve", "--host", host, "--port", str(port), "--socket", str(descriptor))
    health = f"{_url(host, port)}/healthz"
    # An answer of 429 or 503 says that the server is overloaded: it is not hung.
    return Service(
        "the API",
        command,
        dict(environment),
        folder / "api.log",
        None,
        lambda: probe_http(health, fine=(200, 429, 503), timeout_seconds=answer_seconds),
        keep=(descriptor,),
    )


def _welcome(settings: Settings, addresses: Addresses) -> Iterator[str]:
    yield f"dialin is up; its data is in {settings.out}"
    yield f"  page      {addresses.api}"
    yield f"  API       {addresses.api}/api/v1"
    yield f"  MLflow    {addresses.mlflow}"
    yield f"  Ray       {addresses.ray}"
    yield f"submit a study with:  dialin submit digits --server {addresses.api}"
    yield "Ctrl-C stops the server; running studies continue when it is started again"


def _logged(say: Callable[[str], None], log: RotatingLog) -> Callable[[str], None]:
    """Return a function that calls `say` with a line and also logs it with the time. The threads that watch the
    services call it, so it is thread safe."""
    lock = threading.Lock()

    def tell(text: str) -> None:
        with lock:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode(errors="replace"))
            say(text)

    return tell


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock that allows one server a folder. Raises ConflictError if another server holds it."""
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConflictError(
            f"another server is running on the folder {folder.parent}; stop it, or name another folder with --out"
        ) from None
    try:
        yield
    finally:
        lock.release()
