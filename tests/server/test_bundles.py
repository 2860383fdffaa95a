"""People's files on a server: how many it takes, and for how long it keeps them."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from dialin.errors import NotFoundError, TooLargeError
from dialin.lifecycle import StudyState
from dialin.server.app import create_app
from dialin.server.services.bundles import BundleService
from dialin.settings import ServerSettings
from dialin.specification.code_bundle import disk_bytes, pack
from tests.server.conftest import bearer, submit

PYTHON = """
name: own
objective: {python: "train.py:train"}
space: {x: {min: 0, max: 1}}
budget: {trials: 2, epochs: 2}
"""
HOUR = 3600.0


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keep(settings, clock):
    """A bundle service with these settings, closed in the end."""
    settings.out.mkdir(parents=True)
    services = []

    def make(**server):
        services.append(BundleService(settings, ServerSettings(**server), clock))
        return services[-1]

    yield make
    for service in services:
        service.close()


@pytest.fixture
def bundle(tmp_path):
    """A bundle of a function and so many bytes more, each time another one."""
    count = iter(range(1000))

    def make(size: int = 0) -> bytes:
        folder = tmp_path / f"own-{next(count)}"
        folder.mkdir()
        (folder / "train.py").write_text(f"def train(config, trial):  # {folder.name}\n    trial.report(1, 0.5)\n")
        if size:
            (folder / "more").write_bytes(os.urandom(size))
        return pack(folder)

    return make


def test_each_submitter_has_a_quota_and_all_have_one_together(keep, bundle, settings):
    service = keep(bundle_bytes=200_000, all_bundles_bytes=300_000)
    first, second = bundle(150_000), bundle(100_000)
    digest, files = service.add("ann", first)
    assert files == 2
    assert service.add("ann", first)[0] == digest  # again, which takes nothing
    with pytest.raises(
        TooLargeError, match=r"does not fit: the files that ann has sent would take .* \(DIALIN_BUNDLES_MIB\)"
    ):
        service.add("ann", second)
    service.add("ben", second)
    service.add("ben", bundle(1_000))
    with pytest.raises(
        TooLargeError, match=r"the files that this server keeps would take .* \(DIALIN_ALL_BUNDLES_MIB\)"
    ):
        service.add("eve", bundle(100_000))
    taken = sum(file.stat().st_blocks * 512 for file in (settings.out / "bundles").rglob("*") if file.is_file())
    assert taken <= 300_000
    assert len(list((settings.out / "bundles").iterdir())) == 3
    service.add("ann", second[:0] + first)  # what was refused is not counted


def test_what_is_counted_is_what_lies_on_the_disk(keep, bundle, settings):
    data = bundle(10_000)
    digest, _ = keep().add("ann", data)
    taken = sum(file.stat().st_blocks * 512 for file in (settings.out / "bundles" / digest).iterdir())
    assert disk_bytes(data) == pytest.approx(taken, abs=4096 * 2)
    assert disk_bytes(data) >= 10_000


def test_what_was_just_sent_stays_and_what_nobody_used_for_long_goes(keep, bundle, clock, settings):
    service = keep(bundle_hours=2)
    digest, _ = service.add("ann", bundle())
    clock.now += 1.9 * HOUR
    assert service.remove_unused() == 0
    service.find(digest)  # a submission is about to name it
    clock.now += 1.9 * HOUR
    assert service.remove_unused() == 0
    clock.now += 0.2 * HOUR
    assert service.remove_unused() == 1
    assert list((settings.out / "bundles").iterdir()) == []
    with pytest.raises(NotFoundError, match="send it first"):
        service.find(digest)


def test_what_is_not_used_makes_room(keep, bundle, clock):
    service = keep(bundle_bytes=200_000, bundle_hours=2)
    service.add("ann", bundle(150_000))
    clock.now += 3 * HOUR
    service.add("ann", bundle(150_000))


def test_bundles_of_a_time_when_nobody_noted_them_are_found(keep, bundle, clock, settings):
    digest, _ = keep().add("ann", bundle())
    with keep()._rows as rows:
        rows.remove("ann", digest)
    service = keep(bundle_hours=2)
    service.adopt_unknown()
    service.find(digest)
    clock.now += 3 * HOUR
    assert service.remove_unused() == 1


@pytest.mark.parametrize("state", [StudyState.QUEUED, StudyState.INTERRUPTED, StudyState.FAILED, StudyState.COMPLETE])
def test_a_study_keeps_its_files_until_it_is_archived(settings, jobs, bundle, clock, state):
    app = create_app(replace(settings, allow_code=True), ServerSettings(poll_seconds=3600, bundle_hours=2), jobs)
    client = TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False)
    service = app.state.dialin.bundles
    service._clock = clock
    digest = client.post("/api/v1/bundles", content=bundle()).json()["bundle"]
    study = submit(client, PYTHON, params={"bundle": digest}).json()["id"]
    clock.now += 1000 * HOUR
    if state is not StudyState.QUEUED:
        entry = app.state.dialin.submissions.get(study)
        app.state.dialin.submissions.settle(entry.submission, state, "")
    assert service.remove_unused() == 0
    if state is not StudyState.QUEUED:
        assert client.delete(f"/api/v1/studies/{study}").status_code == 204
        assert service.remove_unused() == 1
        assert client.get(f"/api/v1/studies/{study}").json()["state"] == state.value  # it can be read all the same
    app.state.dialin.close()


def test_a_bundle_that_does_not_fit_is_one_clear_error(settings, jobs, bundle, tokens):
    server = ServerSettings(poll_seconds=3600, bundle_bytes=100_000)
    app = create_app(replace(settings, allow_code=True), server, jobs)
    client = TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False)
    ann, ben = bearer(tokens.create("ann", "submitter")), bearer(tokens.create("ben", "submitter"))
    answer = client.post("/api/v1/bundles", content=bundle(200_000), headers=ann)
    assert answer.status_code == 413
    assert answer.json()["detail"].startswith(
        "this bundle of 0.2 MiB does not fit: the files that ann has sent would take 0.2 MiB"
    )
    assert client.post("/api/v1/bundles", content=bundle(50_000), headers=ben).status_code == 201
    app.state.dialin.close()
