"""Where the commands find studies: in a folder of this machine, or on a server.

A command is written once, over `Backend`. Both backends answer with the models of `dialin.schemas`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NoReturn, Protocol, Self
from urllib.parse import urljoin

from dialin.client.client import Client
from dialin.client.local import LocalStudies
from dialin.client.study import StudyHandle
from dialin.errors import UsageError
from dialin.events.publisher import Listener
from dialin.schemas import Best, Event, LocalStudy, Study, StudyInFull, Trial
from dialin.search.records import trial_log_name
from dialin.settings import ServerAddress, Settings
from dialin.specification.study_spec import StudySpec
from dialin.study_flow import run as flow

RUNNER = "ray"  # what trains where --runner is not given
Listen = Callable[[], AbstractContextManager[Listener]]
"""Opens the progress display of a study that this process drives."""


class Backend(Protocol):
    """The studies that a command works on. A context manager.

    A `reference` is a study's id, a name (its newest study) or `last`. Methods raise the errors of `dialin.errors`.
    """

    on_server: bool
    """Whether the studies are a server's."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def submit(self, spec: str, overrides: Sequence[str], priority: int) -> Study:
        """Queue a study."""

    def studies(self, states: Sequence[str]) -> list[Study]:
        """The studies in these states, or all, newest first."""

    def study(self, reference: str) -> StudyInFull:
        """A study in full."""

    def trials(self, reference: str) -> list[Trial]:
        """Every trial in the order of its number."""

    def trial(self, reference: str, number: int) -> Trial:
        """One trial."""

    def best(self, reference: str, trial: int | None = None) -> Best:
        """The best configuration so far, or that of a trial of the Pareto front. Raises NoResultError while there is
        none, and UsageError for a trial that is not on the front."""

    def best_yaml(self, reference: str, trial: int | None = None) -> str:
        """The configuration of `best` as a specification that trains it again. Raises as that method."""

    def logs(self, reference: str, tail: int, trial: int | None) -> Mapping[str, str]:
        """The last `tail` lines of each log, by the log's name; or of the log of one trial."""

    def events(self, reference: str) -> Iterator[Event]:
        """What happens in a study until it has ended."""

    def stop(self, reference: str) -> Study:
        """End a study; it may take a while until it has ended."""

    def resume(self, reference: str, runner: str | None, listen: Listen) -> Study:
        """Continue a study: here, until it has ended, or by queueing it on the server."""

    def extend(
        self, reference: str, trials: str | None, epochs: str | None, runner: str | None, listen: Listen
    ) -> Study:
        """Enlarge a study's budget and continue it, as `resume` does."""

    def command(self, words: str) -> str:
        """A dialin command that finds the same studies when it is typed in the current folder."""

    def link(self, study: Study, name: str) -> str | None:
        """A link of a study, such as `page`, as a whole address; None where there is none."""


def open_backend(arguments: Namespace) -> Backend:
    """The backend that the command line and the environment name: a server with --server or DIALIN_SERVER, unless --out
    names a folder. Raises UsageError when the command line names both, and for options that a server does not take."""
    address = ServerAddress.read(url=arguments.server, out=arguments.out)
    if address is None:
        return LocalBackend(Settings.read(out=arguments.out, data_dir=getattr(arguments, "data_dir", None)))
    # Silently ignored, these would let people believe that they have chosen where their study trains.
    for option in ("runner", "data_dir"):
        value = getattr(arguments, option, None)
        if value is not None:
            name = f"--{option.replace('_', '-')}"
            raise UsageError(f"{name} {value}: the server decides where trials run and where data sets are")
    return RemoteBackend(Client(address.url, address.token), arguments.server)


class LocalBackend(LocalStudies):
    """The studies of an output folder, and the ways to drive one in this process."""

    on_server = False

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.settings = settings

    def submit(self, spec: str, overrides: Sequence[str], priority: int) -> NoReturn:
        """Raises UsageError: a folder has no queue."""
        raise UsageError(
            f"a study is submitted to a server: --server URL, or DIALIN_SERVER; without one: dialin run {spec}"
        )

    def run(self, spec: StudySpec, runner: str | None, listen: Listen) -> LocalStudy:
        """Run a new study in this process until it has ended."""
        with listen() as listener:
            return self.keep(flow.run_study(spec, self.settings, listener, runner or RUNNER))

    def resume(self, reference: str, runner: str | None, listen: Listen) -> LocalStudy:
        """Continue a study in this process until it has ended."""
        with listen() as listener:
            return self.keep(flow.resume_study(reference, self.settings, listener, runner or RUNNER))

    def extend(
        self, reference: str, trials: str | None, epochs: str | None, runner: str | None, listen: Listen
    ) -> LocalStudy:
        """Enlarge a study's budget and continue it in this process until it has ended."""
        with listen() as listener:
            return self.keep(
                flow.extend_study(reference, self.settings, listener, runner or RUNNER, trials=trials, epochs=epochs)
            )

    def link(self, study: Study, name: str) -> str | None:
        """None: a folder has no pages."""
        return None


class RemoteBackend:
    """The studies of a server. `named`: the address, if the command line names it; commands that are suggested name it
    too."""

    on_server = True

    def __init__(self, client: Client, named: str | None = None) -> None:
        self._client = client
        self._named = named
        self._handles: dict[str, StudyHandle] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def submit(self, spec: str, overrides: Sequence[str], priority: int) -> Study:
        """Queue a study; returns it as the server has stored it."""
        return self._client.submit(spec, priority=priority, overrides=overrides).info

    def studies(self, states: Sequence[str]) -> list[Study]:
        """The studies in these states, or all, newest first."""
        return [study.info for study in self._client.studies(states, page=200)]

    def study(self, reference: str) -> StudyInFull:
        """A study in full."""
        return self._handle(reference).detail()

    def trials(self, reference: str) -> list[Trial]:
        """Every trial in the order of its number."""
        return self._handle(reference).trial_list()

    def trial(self, reference: str, number: int) -> Trial:
        """One trial."""
        return self._handle(reference).trial(number)

    def best(self, reference: str, trial: int | None = None) -> Best:
        """The best configuration so far, or that of a trial of the Pareto front. Raises NoResultError while there is
        none, and UsageError for a trial that is not on the front."""
        return self._handle(reference).best(trial)

    def best_yaml(self, reference: str, trial: int | None = None) -> str:
        """The configuration of `best` as a specification. Raises as that method."""
        return self._handle(reference).best_yaml(trial)

    def logs(self, reference: str, tail: int, trial: int | None) -> Mapping[str, str]:
        """The driver's log, or that of one trial: a server does not send the logs of all trials at once."""
        name = "driver.log" if trial is None else trial_log_name(trial)
        text = self._handle(reference).logs(tail, trial)
        return {name: text} if text else {}

    def events(self, reference: str) -> Iterator[Event]:
        """What happens in a study until it has ended."""
        return self._handle(reference).events()

    def stop(self, reference: str) -> Study:
        """Ask the server to end a study; returns before the study has ended."""
        return self._handle(reference).stop().info

    def resume(self, reference: str, runner: str | None, listen: Listen) -> Study:
        """Queue a study again; `runner` and `listen` are not used, because the server trains."""
        return self._handle(reference).resume().info

    def extend(
        self, reference: str, trials: str | None, epochs: str | None, runner: str | None, listen: Listen
    ) -> Study:
        """Enlarge a study's budget and queue it again; `runner` and `listen` as for `resume`."""
        return self._handle(reference).extend(trials, epochs).info

    def command(self, words: str) -> str:
        """A dialin command that goes to the same server."""
        return f"dialin {words} --server {self._named}" if self._named else f"dialin {words}"

    def link(self, study: Study, name: str) -> str | None:
        """A link of a study as a whole address; the server sends paths."""
        path = getattr(study.links, name, None)
        return urljoin(f"{self._client.url}/", path) if path else None

    def _handle(self, reference: str) -> StudyHandle:
        """The study, looked up once: a name or `last` stays the same study for the whole command."""
        if reference not in self._handles:
            found = self._client.study(reference)
            self._handles[reference] = self._handles[found.id] = found
        return self._handles[reference]
