"""The OpenAPI document, and what comes of requests made from it."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from unittest import SkipTest

import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from dialin.schemas import ProblemDocument
from dialin.server.app import create_app
from dialin.settings import ServerSettings, Settings
from tests.server.conftest import FakeJobs, submit


@schemathesis.serializer("application/zip")
def as_bytes(_context, value):
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    folder = tmp_path_factory.mktemp("described")
    generous = ServerSettings(
        allowed_hosts=("testserver",), poll_seconds=3600, reads=1e5, writes=1e5, max_studies=10**6
    )
    app = create_app(Settings(folder / "out", folder / "data", allow_code=True), generous, FakeJobs())
    from starlette.testclient import TestClient

    client = TestClient(app, base_url="http://127.0.0.1")
    submit(client)
    client.close()
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)


def test_no_request_finds_a_server_error(described):
    """25 requests to each path, made to fit the description and not to fit it."""
    checks = [not_a_server_error, response_schema_conformance, content_type_conformance]
    sent = Counter()
    for found in described.exclude(path_regex="/events$").get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @given(case=operation.as_strategy(generation_mode=mode))
            @hypothesis_settings(
                max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
            )
            def send(case):
                sent[mode] += 1  # noqa: B023  called at once
                case.call_and_validate(checks=checks)

            # A path that takes nothing cannot be asked wrongly.
            with suppress(Unsatisfiable, SkipTest):
                send()
    assert sent[GenerationMode.POSITIVE] > 200, sent
    assert sent[GenerationMode.NEGATIVE] > 200, sent


def test_the_description_is_made_once(client, monkeypatch):
    made, make = [], ProblemDocument.model_json_schema
    monkeypatch.setattr(ProblemDocument, "model_json_schema", lambda **keywords: made.append(1) or make(**keywords))
    for _ in range(3):
        assert "ProblemDocument" in client.get("/api/v1/openapi.json").json()["components"]["schemas"]
    assert len(made) == 1


def test_every_path_is_described_with_its_errors_and_examples(client):
    document = client.get("/api/v1/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            assert described["summary"], (method, path)
            if path not in ("/api/v1/healthz", "/api/v1/readyz"):
                assert "application/problem+json" in described["responses"]["401"]["content"], (method, path)
    body = document["paths"]["/api/v1/studies"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/yaml", "application/json"}
    for kind, about in body.items():
        text = about["example"]
        answer = client.post(
            "/api/v1/plan",
            headers={"Content-Type": kind},
            **({"json": text} if kind.endswith("json") else {"content": text}),
        )
        assert answer.status_code == 200, answer.text
