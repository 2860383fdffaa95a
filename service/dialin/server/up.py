"""A whole server on one machine: the API with its page, MLflow, and a Ray cluster, each a process of its own.

All listen on loopback, except the API, which listens where it is told. A service that dies, loses its guard or fails
its health checks is restarted. All of them are ended when this process ends, each by its own id; if this process is
killed, their guards end them.
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
    "RAY_AUTH_MODE": "token",  # said outright: a token file in someone's home would otherwise decide it
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # for this machine only, so Ray listens on loopback only
    "RAY_ROTATION_MAX_BYTES": str(8 * 2**20),  # of each log of Ray's own; its default are 512 MiB, five times
    "RAY_ROTATION_BACKUP_COUNT": "1",
}


@dataclass
class Addresses:
    """The addresses of the services. A service whose port is taken moves to another one."""

    api: str
    mlflow: str
    ray: str


def run_server(settings: Settings, server: ServerSettings, host: str, port: int, say: Callable[[str], None]) -> None:
    """Start the services that the settings do not name an address for, say where everything is, and keep them running
    until an interrupt. What is said is also written to `server/up.log` in the output folder.

    Raises UsageError for a port that is taken, a folder that cannot be used and settings that are not safe,
    ConflictError if a server runs on this folder already, DatabaseError for a database that is damaged or of another
    version, and ServerError if a service does not start.
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
    with _alone(folder), Interrupts() as interrupts, ExitStack() as stack:
        log = RotatingLog(folder / "up.log", _UP_LOG_BYTES)
        stack.callback(log.close)
        tell = _told(say, log)
        try:
            _run(settings, server, (host, port), folder, stack, interrupts, tell)
        except KeyboardInterrupt:
            interrupts.finish()  # what follows is short, and has to be done
            tell("ending ...")
        except DialinError as error:
            _told(lambda _text: None, log)(f"ending: {error}")  # whoever called says it
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
    """Write a new mark for the processes of this server into its folder, and return it. Processes with the mark of an
    earlier server are ended: it was killed together with its guards."""
    note = folder / "mark"
    if note.exists() and (before := note.read_text().strip()) and (left := end_marked(before, guards_too=True)):
        say(f"a server that was killed before had left processes, which were ended ({left})")
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
    """Return a function for each service, in the order of starts, that creates it. A service that is created again
    writes its new address into the environment of the later ones."""
    folder, makers = OutputFolder(settings.out).server, []
    answer_seconds = min(PROBE_SECONDS, server.health_timeout_seconds / LEAST_PROBES)
    environment = {**_environment(settings), MARK: mark}
    addresses = Addresses(_shown(*at), settings.mlflow_uri or "", server.ray_address or "")
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
        # Made once, so that a part that is started again knows it; in the environment, which only our account can read.
        environment[MLFLOW_SECRET] = secrets.token_urlsafe(32)
        addresses.mlflow = f"{addresses.api}{MLFLOW_PATH}/"
        makers.append(make_mlflow)
    if server.ray_address is None:
        environment.pop("RAY_ADDRESS", None)  # somebody else's cluster
        environment |= _RAY | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        temporary = scratch_for_ray("dialin-head-")
        stack.callback(remove_scratch, temporary)
        makers.append(make_ray)
    makers.append(lambda: _api(at, descriptor, environment, folder, answer_seconds))
    mask = OutputFolder(settings.out).mask
    return [_set_up(make, server.log_bytes, mask) for make in makers], addresses


def _set_up(make: Callable[[], Service], log_bytes: int, mask: int) -> Callable[[], Service]:
    """With the bound of its log, and what it makes closed to other accounts. Not so with Ray: its folders are closed
    themselves, and people's functions run in it, whose files are theirs."""

    def made() -> Service:
        part = make()
        return replace(part, log_bytes=log_bytes, umask=-1 if part.name == "Ray" else mask)

    return made


def _shown(host: str, port: int) -> str:
    """Return the address of the API as this machine reaches it."""
    name = host if host not in ("0.0.0.0", "::") else "127.0.0.1"
    return f"http://{f'[{name}]' if ':' in name else name}:{port}"


def _for_drivers(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Without the server's own access to the database where drivers run other people's code: they are given theirs."""
    hidden = {"DIALIN_DATABASE_URL"} if settings.allow_code else set()
    return {name: value for name, value in environment.items() if name not in hidden}


def _environment(settings: Settings) -> dict[str, str]:
    """The environment of every service: ours, with what all of them have to agree on. `python` is this interpreter."""
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    directly = ",".join([*filter(None, [os.environ.get("NO_PROXY", os.environ.get("no_proxy"))]), *LOOPBACK])
    return {
        **os.environ,
        "PATH": os.pathsep.join(programs),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": directly,  # the parts' secrets for each other are for no proxy's eyes
        "no_proxy": directly,
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
    for session in sorted((temporary / "ray").glob("session_2*"))[:-1]:  # of starts before the last one
        shutil.rmtree(session, ignore_errors=True)
    shape, inside = local_shape(), temporary / "ray"
    command = [
        *(program_path("ray", "ray[default]"), "start", "--head", "--block", "--disable-usage-stats"),
        # Asked for outright: Ray would go on without its dashboard where the port is taken, and never be ready.
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
    """The API, which is given the socket that it listens on."""
    host, port = at
    command = module_command("dialin.server.serve", "--host", host, "--port", str(port), "--socket", str(descriptor))
    health = f"{_shown(host, port)}/healthz"
    # A server that answers that it has too much to do is not hung.
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
    yield f"dialin is up; its data lies in {settings.out}"
    yield f"  page      {addresses.api}"
    yield f"  API       {addresses.api}/api/v1"
    yield f"  MLflow    {addresses.mlflow}"
    yield f"  Ray       {addresses.ray}"
    yield f"submit a study with:  dialin submit digits --server {addresses.api}"
    yield "Ctrl-C ends all of it; studies that run go on when it is up again"


def _told(say: Callable[[str], None], log: RotatingLog) -> Callable[[str], None]:
    """Return a function that says a line and logs it with its time. Services are watched in threads, so it takes a
    lock."""
    lock = threading.Lock()

    def tell(text: str) -> None:
        with lock:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode(errors="replace"))
            say(text)

    return tell


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
