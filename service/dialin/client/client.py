"""A dialin server from Python.

    from dialin import Client

    with Client("http://127.0.0.1:8080") as client:
        study = client.submit("digits", overrides=["budget.trials=50"])
        study.wait()
        print(study.best().params)

Every method raises the error that the server raised, as its class of `dialin.errors`; ServerUnreachableError when there
is no answer; and ProtocolError when the answer is not one of a dialin server. Only requests that may be repeated are.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dialin.client.answers import pages, read_answer, read_study, study_path
from dialin.client.http import Connection, Retries, Transport
from dialin.client.study import StudyHandle
from dialin.errors import NotFoundError, SpecError
from dialin.schemas import Bundle, Knob, SearchSpace, Study

MAX_NAME = 64  # characters of a study's name


class Client:
    """A dialin server. A context manager; safe to use from several threads.

    `url`: the server's address, as http://HOST:PORT. `token`: who asks, where the server requires tokens. `timeout`:
    seconds to wait for each answer. `transport`: an httpx transport that replaces the network, for tests. `retries`:
    how failed requests are repeated. Raises UsageError for an address that is not one of a server.
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

    @property
    def url(self) -> str:
        """The server's address, without the path of the API."""
        return self._connection.url

    def close(self) -> None:
        """Close the connections to the server."""
        self._connection.close()

    def submit(
        self, spec: str | Path | Mapping[str, Any], *, priority: int = 0, overrides: Sequence[str] = ()
    ) -> StudyHandle:
        """Queue a study.

        `spec`: a specification as a file, as YAML text of more than one line, as plain data, or the name of a shipped
        search space. `overrides`: changes as `--set` takes them, such as budget.epochs=3. `priority`: -100 to 100;
        studies with a higher one start first. When the specification names a function of your own, the files of its
        folder are sent first. However often the request had to be repeated, one study is queued.

        Raises SpecError with every problem by path and line, and BundleError for files that cannot be sent.
        """
        # Reading a specification loads libraries that the other methods do not need.
        from dialin.client.prepare import prepare

        sent = prepare(spec, overrides)
        query: dict[str, Any] = {"priority": priority}
        if sent.bundle is not None:
            # A bundle's address is the digest of its content, so sending it twice is harmless.
            made = self._connection.json(
                "POST", "/bundles", safe=True, content=sent.bundle, headers={"Content-Type": "application/zip"}
            )
            query["bundle"] = read_answer(Bundle, made, "a bundle").bundle
        headers = {"Content-Type": "application/yaml", "Idempotency-Key": uuid.uuid4().hex}
        try:
            data = self._connection.json(
                "POST", "/studies", safe=True, content=sent.text, params=query, headers=headers
            )
        except SpecError as error:
            raise SpecError([sent.located(problem) for problem in error.problems], sent.source) from None
        return self._handle(data)

    def studies(
        self,
        state: str | Sequence[str] = (),
        *,
        name: str | None = None,
        owner: str | None = None,
        archived: bool = False,
        page: int = 50,
    ) -> Iterator[StudyHandle]:
        """The studies, the newest first, requested `page` at a time as they are consumed.

        `state`, `name`, `owner`: only studies with these. `archived`: also those that were archived.
        """
        states = [state] if isinstance(state, str) else list(state)
        query: dict[str, Any] = {"state": states, "name": name, "owner": owner, "limit": page}
        query["archived"] = "true" if archived else None
        for data in pages(self._connection, "/studies", "studies", query):
            yield self._handle(data)

    def study(self, reference: str) -> StudyHandle:
        """The study with this id, or the newest one with this name, or for `last` the newest of all.

        Raises NotFoundError.
        """
        path = study_path(reference)
        try:
            return self._handle(self._connection.json("GET", path))
        except NotFoundError:
            found = self._newest(None if reference == "last" else reference)
            if found is None:
                raise
            return found

    def spaces(self) -> list[SearchSpace]:
        """The search spaces that the server ships."""
        return read_answer(list[SearchSpace], self._connection.json("GET", "/search-spaces"), "search spaces")

    def knobs(self) -> list[Knob]:
        """Every knob that a search space on this server may name, with its values and its source."""
        return read_answer(list[Knob], self._connection.json("GET", "/knobs"), "knobs")

    def _newest(self, name: str | None) -> StudyHandle | None:
        if name is not None and len(name) > MAX_NAME:
            return None
        return next(self.studies(name=name, page=1), None)

    def _handle(self, data: Any) -> StudyHandle:
        return StudyHandle(self._connection, read_study(Study, data))
