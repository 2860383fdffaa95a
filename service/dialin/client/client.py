"""A server's studies from Python.

    with Client("http://127.0.0.1:8000") as client:
        study = client.submit("digits", overrides=["budget.trials=50"])
        study.wait()
        print(study.best().params)

Every method raises what the server raised, as the classes of `dialin.errors`, and ServerError when there is no server
or it answers what no dialin server would. Only what may be asked twice is asked again.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

from dialin.client.http import Connection, Message, Retries, Transport
from dialin.errors import NotFoundError, RateLimitedError, ServerError, SpecError
from dialin.lifecycle import ENDED

MOST_NAME = 64  # characters that a study's name has at most
POLL_SECONDS = 2.0  # between two looks at a study whose event stream cannot be had
MOST_BREAKS = 3  # event streams in a row that broke before they said anything, until they are given up
MOST_FAILURES = 10  # looks at a study in a row that failed, each after some attempts, until it is given up
SAID_SECONDS = 2.0  # between two lines of progress, at least
_AWAY = (ServerError, RateLimitedError)  # what may be over in a while


@dataclass(frozen=True)
class StudyInfo:
    """A study as the server last told it. Times in seconds since 1970; `seconds`: how long it was driven, as of its
    last end; `owner`: None of one that was run without the server; `trials`: how many are in each state, and `budget`;
    `best`: the best value of `metric` so far; `links`: paths on the server; `mlflow` may be an address elsewhere;
    `unreadable`: what of it the server cannot read as it is stored."""

    id: str
    name: str
    state: str
    reason: str
    owner: str | None
    priority: int
    metric: str
    mode: str
    best: float | None
    trials: Mapping[str, int]
    seconds: float
    created_at: float
    started_at: float | None
    ended_at: float | None
    attempts: int
    concurrency: int | None
    mirror_lag: int
    archived: bool
    links: Mapping[str, str | None]
    mirror_note: str = ""  # how far MLflow lags and why, in words
    unreadable: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def line(self) -> str:
        """Where the study stands, in a line."""
        done = sum(self.trials.get(state, 0) for state in ("complete", "stopped", "diverged", "failed"))
        parts = [f"{done}/{self.trials.get('budget', 0)} trials", f"{self.trials.get('running', 0)} running"]
        if self.best is not None:
            parts.append(f"best {self.metric} {self.best:.4g}")
        if self.ended:
            parts.append(f"{self.seconds:.0f} s")
        reason = f"unreadable: {self.unreadable}" if self.unreadable else self.reason
        why = f" ({reason})" if reason else ""
        return f"study {self.id} {self.state}{why}: {', '.join(parts)}"


@dataclass(frozen=True)
class Best:
    """The best configuration: its trial, the value of its metric, the epoch that reached it, every knob, and what it
    reached on the test split; None while that was not read for this trial."""

    trial: int
    value: float
    epoch: int
    params: Mapping[str, Any]
    metric: str
    test: Mapping[str, float] | None


@dataclass(frozen=True)
class Event:
    """Something that happened in a study: trial_started, epoch, decision, trial_ended, note or study. `id` is where it
    stands in the stream; empty for one that was not read from it."""

    id: str
    kind: str
    data: Mapping[str, Any]


class Client:
    """A server. `token`: who asks, where it wants to know. `timeout`: seconds for each answer.

    A context manager; safe to use from several threads. Raises UsageError for an address that is none. `transport`
    takes the place of the network.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout: float = 30,
        *,
        transport: Transport | None = None,
        retries: Retries | None = None,
    ) -> None:
        self._connection = Connection(url, token, timeout, transport, retries or Retries())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._connection.url!r})"

    def close(self) -> None:
        self._connection.close()

    def submit(
        self, spec: str | Path | Mapping[str, Any], *, priority: int = 0, overrides: Sequence[str] = ()
    ) -> StudyHandle:
        """Put a study in the queue: a specification's file, its data, or the name of a shipped one.

        `overrides` as in `--set`, such as budget.epochs=3. Where the specification names a function of one's own, the
        files of its folder are sent first. Submitted once, however often it had to be sent. Raises SpecError with
        every problem by path and line, and BundleError.
        """
        # Reading specifications takes libraries that a look at a study does without.
        from dialin.client.prepare import prepare

        sent = prepare(spec, overrides)
        query: dict[str, Any] = {"priority": priority}
        if sent.bundle is not None:
            # The same files have the same address: sending them twice is harmless.
            made = self._connection.json(
                "POST", "/bundles", safe=True, content=sent.bundle, headers={"Content-Type": "application/zip"}
            )
            query["bundle"] = _text(made, "bundle")
        headers = {"Content-Type": "application/yaml", "Idempotency-Key": uuid.uuid4().hex}
        try:
            data = self._connection.json(
                "POST", "/studies", safe=True, content=sent.text, params=query, headers=headers
            )
        except SpecError as error:
            raise SpecError([sent.located(problem) for problem in error.problems], sent.source) from None
        return StudyHandle(self._connection, study_info(data))

    def studies(
        self,
        state: str | Sequence[str] = (),
        *,
        name: str | None = None,
        owner: str | None = None,
        archived: bool = False,
        page: int = 50,
    ) -> Iterator[StudyHandle]:
        """The studies, the newest first, asked for `page` at a time as they are taken."""
        states = [state] if isinstance(state, str) else list(state)
        query: dict[str, Any] = {"state": states, "name": name, "owner": owner, "limit": page}
        query["archived"] = "true" if archived else None
        for data in _pages(self._connection, "/studies", "studies", query):
            yield StudyHandle(self._connection, study_info(data))

    def study(self, reference: str) -> StudyHandle:
        """The study of that id; or the newest one of that name; or `last`, the newest of all. Raises NotFoundError."""
        path = _path(reference)
        try:
            return StudyHandle(self._connection, study_info(self._connection.json("GET", path)))
        except NotFoundError:
            found = self._newest(None if reference == "last" else reference)
            if found is None:
                raise
            return found

    def _newest(self, name: str | None) -> StudyHandle | None:
        if name is not None and len(name) > MOST_NAME:
            return None
        return next(self.studies(name=name, page=1), None)

    def spaces(self) -> list[dict[str, Any]]:
        """The search spaces that the server ships: `name`, `summary`, `yaml`."""
        return _listed(self._connection.json("GET", "/search-spaces"))

    def knobs(self) -> list[dict[str, Any]]:
        """Every knob that a space on this server may name, with its values and its source."""
        return _listed(self._connection.json("GET", "/knobs"))


class StudyHandle:
    """One study of a server. `info` is what was last heard of it; `refresh` asks again."""

    def __init__(self, connection: Connection, info: StudyInfo) -> None:
        self._connection = connection
        self._path = _path(info.id)
        self.info = info

    def __repr__(self) -> str:
        return f"StudyHandle({self.id!r}, {self.state})"

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def state(self) -> str:
        return self.info.state

    def link(self, name: str) -> str | None:
        """A link of the study as a whole address: page, mlflow, ..."""
        link = self.info.links.get(name)
        return urljoin(f"{self._connection.url}/", link) if link else None

    def refresh(self) -> StudyHandle:
        """This study, asked about again."""
        self.detail()
        return self

    def detail(self) -> dict[str, Any]:
        """All that the server says of the study: its specification as YAML, what was found, what it cost."""
        data = self._connection.json("GET", self._path)
        self.info = study_info(data)
        return dict(data)

    def wait(self, progress: bool = True, timeout: float | None = None) -> StudyHandle:
        """Return when the study has ended, however it did: `state` and `info.reason` say how. `progress`: say on
        standard error where it stands. Raises TimeoutError after `timeout` seconds."""
        said, line = -SAID_SECONDS, ""
        deadline = None if timeout is None else time.monotonic() + timeout
        for event in self._events(None, deadline):
            if not progress or (time.monotonic() - said < SAID_SECONDS and not self.info.ended):
                continue
            if event.kind != "study":
                self._look(deadline)
            said = time.monotonic()
            if self.info.line() != line:
                line = self.info.line()
                print(line, file=sys.stderr, flush=True)
        return self

    def events(self, last_id: str | None = None) -> Iterator[Event]:
        """What happens in the study, from its beginning or from after the event `last_id`, until it ends. A connection
        that breaks is made again. Where there is no stream, `study` events alone, whenever the study has changed."""
        return self._events(last_id, None)

    def best(self) -> Best:
        """Raises NoResultError, with the reason, while no trial has reported a finite value."""
        data = self._connection.json("GET", f"{self._path}/best")
        try:
            test = data["test"]
            return Best(int(data["trial"]), float(data["value"]), int(data["epoch"]), dict(data["params"]),
                        str(data["metric"]), None if test is None else dict(test))  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise _misunderstood("a best configuration", error) from error

    def best_yaml(self) -> str:
        """The best configuration as a specification that trains it again. Raises NoResultError."""
        return self._connection.text(f"{self._path}/best", headers={"Accept": "application/yaml"})

    def trials(self) -> Any:
        """Every trial by its number, its knobs as columns `params_NAME`: a pandas DataFrame where there is pandas, else
        a list of dicts."""
        rows = []
        for data in self.trial_list():
            params = {f"params_{name}": value for name, value in data.get("params", {}).items()}
            rows.append({**{name: value for name, value in data.items() if name != "params"}, **params})
        return _table(rows)

    def trial_list(self) -> list[dict[str, Any]]:
        """Every trial by its number, as the server tells it."""
        return list(_pages(self._connection, f"{self._path}/trials", "trials", {"sort": "number", "limit": 1000}))

    def trial(self, number: int) -> dict[str, Any]:
        """One trial. Raises NotFoundError."""
        return dict(self._connection.json("GET", f"{self._path}/trials/{int(number)}"))

    def curve(self) -> Any:
        """How the best value grew with epochs, trials and seconds: a pandas DataFrame, or a list of dicts as above."""
        data = self._connection.json("GET", f"{self._path}/curve")
        return _table(_listed(data.get("points") if isinstance(data, dict) else None))

    def logs(self, tail: int = 200, trial: int | None = None) -> str:
        """The last lines of the driver's log; of a trial's, with the traceback of one that has failed, where its number
        is given. Raises NotFoundError for a trial that is not there."""
        path = "logs" if trial is None else f"trials/{int(trial)}/log"
        return self._connection.text(f"{self._path}/{path}", params={"tail": tail})

    def stop(self) -> StudyHandle:
        """Ask for the study's end: it keeps what it has, and can be resumed. Raises ConflictError for one that has."""
        return self._changed("stop")

    def resume(self) -> StudyHandle:
        """Put the study in the queue again. Raises ConflictError for one that is complete, or that has not ended."""
        return self._changed("resume")

    def extend(self, trials: int | str | None = None, epochs: int | str | None = None) -> StudyHandle:
        """Add to the budget, and put the study in the queue again: the new number, or "+N". Raises UsageError for a
        budget that is not larger."""
        more = {name: str(value) for name, value in (("trials", trials), ("epochs", epochs)) if value is not None}
        return self._changed("extend", json=more)

    def archive(self) -> None:
        """List the study no longer; nothing is deleted. Raises ConflictError for one that has not ended."""
        self._connection.send("DELETE", self._path)

    def _changed(self, verb: str, **request: Any) -> StudyHandle:
        self.info = study_info(self._connection.json("POST", f"{self._path}/{verb}", **request))
        return self

    def _events(self, last_id: str | None, deadline: float | None) -> Iterator[Event]:
        """Events until the study has ended; of the stream while there is one."""
        breaks = 0
        while breaks < MOST_BREAKS:
            breaks += 1
            try:
                with self._connection.stream(f"{self._path}/events", last_id, self._within(deadline)) as messages:
                    for message in messages:
                        self._check(deadline)
                        event = None if message is None else self._heard(message)
                        breaks = 0
                        if event is not None:
                            last_id = event.id
                            yield event
                            if event.kind == "study" and self.info.ended:
                                return
            except _AWAY:
                self._pause(deadline, self._connection.retries.seconds(breaks))
        yield from self._polled(deadline)

    def _polled(self, deadline: float | None) -> Iterator[Event]:
        """How the study stands, now and whenever that has changed, until it has ended."""
        told: Mapping[str, Any] | None = None
        while True:
            info = self._look(deadline)
            if vars(info) != told:
                told = vars(info)
                yield Event("", "study", told)
            if info.ended:
                return
            self._pause(deadline, POLL_SECONDS)

    def _look(self, deadline: float | None) -> StudyInfo:
        """The study as it is now; a server that is away for a while is waited for."""
        for failures in range(MOST_FAILURES):
            self._check(deadline)
            try:
                return self.refresh().info
            except _AWAY:
                if failures == MOST_FAILURES - 1:
                    raise
                self._pause(deadline, self._connection.retries.seconds(failures + 2))
        return self.info

    def _heard(self, message: Message) -> Event:
        try:
            data = json.loads(message.data)
        except ValueError as error:
            raise _misunderstood(f"an event {message.kind}", error) from error
        if message.kind == "study":
            self.info = study_info(data)
        return Event(message.id, message.kind, data if isinstance(data, dict) else {})

    def _within(self, deadline: float | None) -> float:
        """How long a stream may be silent, in seconds."""
        left = float("inf") if deadline is None else deadline - time.monotonic()
        return max(0.01, min(self._connection.timeout, left))

    def _pause(self, deadline: float | None, seconds: float) -> None:
        left = seconds if deadline is None else min(seconds, deadline - time.monotonic())
        if left > 0:
            self._connection.retries.sleep(left)
        self._check(deadline)

    def _check(self, deadline: float | None) -> None:
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"study {self.id} is still {self.state}")


def study_info(data: Any) -> StudyInfo:
    """A study from a server's answer; what a newer server says beside it is left out. Raises ServerError."""
    try:
        known = [field.name for field in fields(StudyInfo) if field.name in data or field.default is MISSING]
        info = StudyInfo(**{name: data[name] for name in known})
        info.line()
        _path(info.id)
    except (KeyError, TypeError, ValueError, AttributeError, NotFoundError) as error:
        raise _misunderstood("a study", error) from error
    return info


def _pages(connection: Connection, path: str, key: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The entries of all pages. Raises ServerError for one that leads nowhere."""
    asked: dict[str, Any] = {name: value for name, value in query.items() if value is not None}
    while True:
        page = connection.json("GET", path, params=asked)
        yield from _listed(page.get(key) if isinstance(page, dict) else None)
        following = page.get("next")
        if not following:
            return
        if following == asked.get("cursor"):
            raise ServerError(f"{path}: the server's page {following!r} leads to itself")
        asked["cursor"] = following


def _listed(data: Any) -> list[dict[str, Any]]:
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise ServerError(f"the server was asked for a list and answered {str(data)[:80]!a}")
    return data


def _text(data: Any, key: str) -> str:
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, str):
        raise ServerError(f"the server's answer has no {key!r}: {str(data)[:80]!a}")
    return value


def _path(study_id: str) -> str:
    """Where a study is. Raises NotFoundError for what can be no id, nor a name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", study_id):
        raise NotFoundError(f"no study {study_id!r}; an id has letters, digits, '-', '_' and '.'")
    return f"/studies/{quote(study_id, safe='')}"


def _table(rows: list[dict[str, Any]]) -> Any:
    if importlib.util.find_spec("pandas") is None:
        return rows
    import pandas

    return pandas.DataFrame(rows)


def _misunderstood(what: str, error: Exception) -> ServerError:
    reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
    return ServerError(f"the server answers with {what} that cannot be read: {reason}")
