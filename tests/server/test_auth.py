"""Who may do what, and from where."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from dialin.errors import RateLimitedError, UsageError
from dialin.server.app import create_app
from dialin.server.rate_limit import RateLimiter
from dialin.server.serve import check_exposure
from dialin.settings import ServerSettings
from tests.server.conftest import bearer, submit


def test_on_loopback_everything_is_open_until_the_first_token_is_made(client, tokens):
    assert client.get("/api/v1/session").json() == {"name": "local", "role": "admin"}
    tokens.create("ana", "admin")
    client.app.state.dialin.auth.forget()
    answer = client.get("/api/v1/session")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_beyond_loopback_nothing_is_open(settings, jobs):
    app = create_app(settings, ServerSettings(allowed_hosts=("dialin.example.org",)), jobs, host="0.0.0.0")
    client = TestClient(app, base_url="http://dialin.example.org")
    assert client.get("/api/v1/studies").status_code == 401
    assert client.get("/healthz").status_code == 200
    client.close()


def test_roles(client, tokens):
    ana, ben, eve, root = (
        tokens.create(n, r)
        for n, r in (("ana", "submitter"), ("ben", "submitter"), ("eve", "viewer"), ("root", "admin"))
    )
    study = submit(client, headers=bearer(ana)).json()
    assert study["owner"] == "ana"
    path = study["links"]["self"]
    assert client.get(path, headers=bearer(eve)).status_code == 200
    assert (
        submit(client, headers=bearer(eve)).json()["detail"]
        == "eve is a viewer and may not submit studies; a submitter may"
    )
    for token, status in ((eve, 403), (ben, 403), (ana, 202)):
        assert client.post(f"{path}/stop", headers=bearer(token)).status_code == status
    assert client.post(f"{path}/resume", headers=bearer(root)).status_code == 202
    assert client.delete(path, headers=bearer(ben)).status_code == 403


def test_the_same_key_of_two_people_makes_two_studies(client, tokens):
    ana, ben = tokens.create("ana", "submitter"), tokens.create("ben", "submitter")
    made = {submit(client, headers={**bearer(token), "Idempotency-Key": "k"}).json()["id"] for token in (ana, ben)}
    assert len(made) == 2


@pytest.mark.parametrize(
    "header", ["Basic YTpi", "Bearer", "Bearer ", "Bearer dialin_x", "bearer \u00e9".encode("latin-1")]
)
def test_what_is_no_token_is_refused(client, tokens, header):
    tokens.create("ana", "admin")
    assert client.get("/api/v1/studies", headers={"Authorization": header}).status_code == 401


def test_a_revoked_token_is_worth_nothing(client, tokens):
    token = tokens.create("ana", "admin")
    assert client.get("/api/v1/session", headers=bearer(token)).json()["name"] == "ana"
    tokens.revoke("ana")
    client.app.state.dialin.auth.forget()  # it is remembered for two seconds
    tokens.create("other", "admin")
    assert client.get("/api/v1/session", headers=bearer(token)).status_code == 401


def test_another_sites_page_can_neither_ask_nor_change_anything(client):
    assert client.get("/api/v1/studies", headers={"Host": "evil.example"}).status_code == 400
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        answer = submit(client, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert submit(client, headers={"Origin": "http://127.0.0.1:8080"}).status_code == 201


def test_who_guesses_tokens_has_to_wait(client, tokens):
    tokens.create("ana", "admin")
    answers = [client.get("/api/v1/studies", headers=bearer(f"dialin_{n}")) for n in range(12)]
    assert [answer.status_code for answer in answers[:10]] == [401] * 10
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_a_bucket_fills_again():
    now = 0.0
    buckets = RateLimiter(2.0, clock=lambda: now)
    for _ in range(20):
        buckets.take("ana")
    buckets.take("ben")
    with pytest.raises(RateLimitedError) as caught:
        buckets.take("ana")
    assert caught.value.retry_after == pytest.approx(0.5)
    now = 0.5
    buckets.take("ana")
    with pytest.raises(RateLimitedError):
        buckets.take("ana")


def test_every_answer_forbids_what_it_does_not_need(client):
    for path in ("/", "/api/v1/studies", "/nothing"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert headers["x-content-type-options"] == "nosniff"


def test_a_server_that_others_can_reach_needs_a_token_and_its_names(settings, tokens):
    with pytest.raises(UsageError, match="dialin token create NAME --role admin\\) and DIALIN_ALLOWED_HOSTS"):
        check_exposure("0.0.0.0", settings, ServerSettings())
    tokens.create("ana", "submitter")
    named = ServerSettings(allowed_hosts=("dialin.example.org",))
    with pytest.raises(UsageError, match="an admin's token"):
        check_exposure("192.0.2.1", settings, named)
    tokens.create("root", "admin")
    check_exposure("192.0.2.1", settings, named)
    check_exposure("127.0.0.1", settings, ServerSettings())
