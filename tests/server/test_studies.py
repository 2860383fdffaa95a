"""What the API does with studies: real database, real studies trained in line, jobs that a test ends."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from starlette.testclient import TestClient

from dialin.server.app import create_app
from dialin.settings import ServerSettings, Settings
from dialin.specification.code_bundle import pack
from dialin.store.studies import Studies
from dialin.store.submissions import Submissions
from dialin.study_flow.progress import Progress
from dialin.study_flow.run import resume_study
from tests.server.conftest import SPEC, FakeJobs, bearer, submit


@pytest.fixture
def trained(client, settings):
    """A study that was submitted and then driven in this process."""
    from rich.console import Console

    study_id = submit(client).json()["id"]
    resume_study(study_id, settings, Progress(Console(quiet=True)), "inline")
    return study_id


def test_a_study_is_submitted_and_queued(client):
    answer = submit(client, params={"priority": 7})
    assert answer.status_code == 201
    study = answer.json()
    assert answer.headers["location"] == study["links"]["self"] == f"/api/v1/studies/{study['id']}"
    assert (study["state"], study["priority"], study["owner"]) == ("queued", 7, "local")
    assert study["trials"] == {
        **dict.fromkeys(("waiting", "running", "complete", "stopped", "diverged", "failed"), 0),
        "budget": 4,
    }
    whole = client.get(study["links"]["self"]).json()
    assert yaml.safe_load(whole["spec"])["name"] == "small"
    assert client.get(study["links"]["trials"]).json() == {"trials": [], "next": None}


def test_json_is_as_good_as_yaml(client):
    data = yaml.safe_load(SPEC.replace("1e-4", "1.0e-4").replace("1e-2", "1.0e-2"))
    answer = client.post("/api/v1/studies", json=data)
    assert answer.status_code == 201, answer.text


def test_everything_wrong_is_named_by_path_and_line(client):
    wrong = SPEC.replace("lr:", "lrr:").replace("trials: 4", "trials: 0")
    answer = submit(client, wrong)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_spec"
    assert {(each["path"], each["line"]) for each in problem["errors"]} == {("space.lrr", 4), ("budget.trials", 6)}
    assert client.get("/api/v1/studies").json()["studies"] == []


def test_a_plan_keeps_nothing(client):
    answer = client.post("/api/v1/plan", content=SPEC, headers={"Content-Type": "text/yaml"})
    assert answer.status_code == 200
    assert (answer.json()["trials"], answer.json()["rungs"], answer.json()["concurrency"]) == (4, [1], 2)
    assert answer.json()["prior"].keys() == answer.json()["first_trials"][0]["params"].keys()
    assert client.get("/api/v1/studies").json()["studies"] == []


def test_one_key_makes_one_study_however_many_servers_and_requests_there_are(settings):
    apps = [create_app(settings, ServerSettings(), FakeJobs()) for _ in range(2)]
    clients = [TestClient(app, base_url="http://127.0.0.1") for app in apps]
    for client in clients:
        submit(client, "no specification")  # what is made at the first request is made in one thread, as in a server

    def send(number: int):
        return submit(clients[number % 2], headers={"Idempotency-Key": "the-one"})

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(send, range(50)))
    assert {answer.status_code for answer in answers} == {200, 201}
    assert sum(answer.status_code == 201 for answer in answers) == 1
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(clients[0].get("/api/v1/studies").json()["studies"]) == 1
    for client in clients:
        client.close()


def test_a_key_stands_for_one_submission(client):
    first = submit(client, headers={"Idempotency-Key": "k"})
    other = submit(client, SPEC.replace("trials: 4", "trials: 5"), headers={"Idempotency-Key": "k"})
    assert other.status_code == 409
    assert first.json()["id"] in other.json()["detail"]


def test_pages_follow_each_other_without_gaps(client):
    made = [submit(client, SPEC.replace("small", f"small-{n}")).json()["id"] for n in range(7)]
    seen, cursor = [], None
    while True:
        page = client.get("/api/v1/studies", params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        seen += [study["id"] for study in page["studies"]]
        if (cursor := page["next"]) is None:
            break
    assert seen == made[::-1]
    named = client.get("/api/v1/studies", params={"name": "small-3", "state": "queued"}).json()["studies"]
    assert [study["id"] for study in named] == [made[3]]
    assert client.get("/api/v1/studies", params={"state": "running"}).json()["studies"] == []


def test_a_trained_study_has_trials_a_best_and_a_curve(client, trained):
    study = client.get(f"/api/v1/studies/{trained}").json()
    assert study["state"] == "complete"
    assert sum(study["trials"][end] for end in ("complete", "stopped", "diverged", "failed")) == 4
    trials = client.get(f"/api/v1/studies/{trained}/trials", params={"sort": "-value"}).json()["trials"]
    values = [trial["value"] for trial in trials]
    assert values == sorted(values, reverse=True)
    page = client.get(f"/api/v1/studies/{trained}/trials", params={"limit": 3}).json()
    rest = client.get(f"/api/v1/studies/{trained}/trials", params={"limit": 3, "cursor": page["next"]}).json()
    assert [trial["trial"] for trial in (*page["trials"], *rest["trials"])] == [0, 1, 2, 3]
    assert client.get(f"/api/v1/studies/{trained}/trials/2").json() == page["trials"][2]

    best = client.get(f"/api/v1/studies/{trained}/best").json()
    assert best["value"] == study["best"] == values[0]
    assert best["params"] == trials[0]["params"]
    again = client.get(f"/api/v1/studies/{trained}/best", headers={"Accept": "application/yaml"})
    assert again.headers["content-type"].startswith("application/yaml")
    assert yaml.safe_load(again.text)["space"]["batch_size"] == best["params"]["batch_size"]

    points = client.get(f"/api/v1/studies/{trained}/curve").json()["points"]
    assert points[-1]["best"] == max(point["value"] for point in points) == max(values)
    assert points[-1]["epochs_total"] == study["epochs"]["trained"]
    assert [point["best"] for point in points] == sorted(point["best"] for point in points)


def test_there_is_no_best_before_the_first_value_and_the_answer_says_why(client):
    study_id = submit(client).json()["id"]
    answer = client.get(f"/api/v1/studies/{study_id}/best")
    assert answer.status_code == 409
    assert answer.json()["code"] == "no_result"
    assert "is queued, and no trial has reported a finite value yet" in answer.json()["detail"]


def test_events_tell_everything_with_reasons_and_go_on_where_one_left_off(client, trained):
    def read(**keywords):
        text = client.get(f"/api/v1/studies/{trained}/events", **keywords).text
        blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
        return [(int(block["id"]), block["event"], json.loads(block["data"])) for block in blocks]

    events = read()
    kinds = [kind for _, kind, _ in events]
    trained_epochs = client.get(f"/api/v1/studies/{trained}").json()["epochs"]["trained"]
    assert kinds.count("epoch") == kinds.count("decision") == trained_epochs
    assert kinds.count("trial_ended") >= 4
    assert all(data["reason"] for _, kind, data in events if kind == "decision")
    assert events[-1][1] == "study"
    assert events[-1][2]["state"] == "complete"
    middle = events[len(events) // 2][0]
    assert list(read(headers={"Last-Event-ID": str(middle)})) == [e for e in events if e[0] > middle or e[1] == "study"]
    assert [kind for _, kind, _ in read(params={"tail": "true"})] == ["study"]


def test_who_waits_is_told_for_what(client, settings):
    ids = [submit(client, params={"priority": priority}).json()["id"] for priority in (0, 5)]

    def reasons():
        return [client.get(f"/api/v1/studies/{study_id}").json()["reason"] for study_id in ids]

    assert reasons() == ["place 2 of 2 in the queue", "place 1 of 2 in the queue"]
    with Submissions(settings.database) as submissions, Studies(settings.database) as studies:
        claimed = submissions.claim(submissions.get(ids[1]).submission, "job")
        studies.mark_running(ids[1], SPEC)
        submissions.set_waiting_for(ids[1], "another", "nothing of ours")
        submissions.set_waiting_for(ids[1], "job", "its trials wait for a worker")
        time.sleep(1.1)  # answers are up to a second old
        assert reasons() == ["place 1 of 1 in the queue", "its trials wait for a worker"]
        third = submit(client).json()["id"]
        submissions.claim(submissions.get(third).submission, "third's")
        time.sleep(1.1)
        assert reasons()[1] == f"its trials wait for a worker; at work are those of {third}"
        submissions.requeue(claimed, failures=1, not_before=0.0, reason="it said nothing")
    time.sleep(1.1)
    assert reasons() == ["place 2 of 2 in the queue", "it said nothing; place 1 of 2 in the queue"]
    (line,) = client.get(f"/api/v1/studies/{ids[1]}").json()["history"]
    assert line.endswith("it said nothing")
    assert "Earlier drivers" in client.get(f"/studies/{ids[1]}").text


def test_stop_resume_extend_and_archive(client, trained):
    path = f"/api/v1/studies/{trained}"
    assert client.post(f"{path}/stop").status_code == 409  # it has ended
    assert client.post(f"{path}/resume").json()["detail"] == f"study {trained} is complete; extend it"
    assert client.post(f"{path}/extend", json={"trials": "3"}).status_code == 400
    extended = client.post(f"{path}/extend", json={"trials": "+3"})
    assert (extended.status_code, extended.json()["state"], extended.json()["trials"]["budget"]) == (202, "queued", 7)
    assert client.delete(path).status_code == 409
    stopped = client.post(f"{path}/stop")
    assert (stopped.json()["state"], stopped.json()["reason"]) == ("interrupted", "stopped before its turn came")
    assert client.post(f"{path}/resume").json()["state"] == "queued"
    client.post(f"{path}/stop")
    assert client.delete(path).status_code == 204
    assert client.get("/api/v1/studies").json()["studies"] == []
    assert [s["id"] for s in client.get("/api/v1/studies", params={"archived": True}).json()["studies"]] == [trained]


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/studies/nobody", 404, "no study 'nobody'"),
        ("GET", "/studies/..%2F..%2Fetc/logs", 404, ""),
        ("GET", "/studies/nobody/events", 404, "no study 'nobody'"),
        ("GET", "/studies?cursor=bm9uZQ", 400, "is none that this server gave"),
        ("GET", "/studies?cursor=W1tbW10", 400, "is none that this server gave"),
        ("GET", "/studies?limit=0", 422, "limit"),
        ("GET", "/studies?state=dancing", 422, "state"),
        ("POST", "/studies", 422, ""),
        ("GET", "/nothing", 404, "Not Found"),
        ("PUT", "/studies", 405, "Method Not Allowed"),
    ],
)
def test_every_error_is_a_problem_document(client, method, path, status, says):
    answer = client.request(method, f"/api/v1{path}")
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert says in answer.json()["detail"]


def test_what_is_too_large_is_refused(client, settings, jobs):
    assert submit(client, "a" * 300_000).status_code == 413
    assert (
        "a flow nested" in submit(client, "[" * 100_000).json()["detail"]
        or submit(client, "[" * 1000).status_code == 422
    )
    many = submit(client, SPEC.replace("trials: 4", "trials: 20000"))
    assert many.status_code == 422
    assert many.json()["errors"][0]["line"] == 6
    assert "more than this server takes, 10000" in many.json()["detail"]
    small = create_app(settings, ServerSettings(max_studies=1), jobs)
    with_limit = TestClient(small, base_url="http://127.0.0.1")
    assert submit(with_limit).status_code == 201
    refused = submit(with_limit)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) > 0
    with_limit.close()


def test_data_lies_where_the_server_keeps_it(client):
    outside = submit(client, SPEC.replace("synthetic", '"npz:/etc/passwd"'))
    assert outside.status_code == 422
    assert "is not below the server's data folder" in outside.json()["detail"]
    assert outside.json()["errors"][0] == {**outside.json()["errors"][0], "path": "objective.dataset", "line": 2}
    inside = submit(client, SPEC.replace("synthetic", '"npz:mine.npz"'))
    assert inside.status_code == 201, inside.text


PYTHON = """\
name: own
objective: {python: "train.py:train"}
space: {x: {min: 0.0, max: 1.0}}
budget: {trials: 4, epochs: 3}
"""


def test_nobodys_code_runs_where_it_is_not_allowed(client, tmp_path):
    assert "this server does not run users' code" in client.post("/api/v1/bundles", content=b"x").json()["detail"]
    (tmp_path / "train.py").write_text("def train(config, trial): ...\n")
    absolute = PYTHON.replace("train.py", str(tmp_path / "train.py"))
    assert submit(client, absolute).status_code == 403


def test_a_function_of_ones_own_comes_as_a_bundle(settings, jobs, tmp_path):
    allowed = Settings(settings.out, settings.data_dir, allow_code=True)
    client = TestClient(create_app(allowed, ServerSettings(), jobs), base_url="http://127.0.0.1")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "train.py").write_text("def train(config, trial): ...\n")
    sent = client.post("/api/v1/bundles", content=pack(folder))
    assert (sent.status_code, sent.json()["files"]) == (201, 1)
    bundle = sent.json()["bundle"]
    study = submit(client, PYTHON, params={"bundle": bundle})
    assert study.status_code == 201, study.text
    assert client.post("/api/v1/bundles", content=pack(folder)).json()["bundle"] == bundle
    for text, params, says in (
        (PYTHON, {}, "lies in no folder"),
        (PYTHON, {"bundle": "0" * 64}, "send it first"),
        (PYTHON, {"bundle": "../../etc"}, "send it first"),
        (PYTHON.replace("train.py", f"{folder}/train.py"), {"bundle": bundle}, "must be among those that were sent"),
        (PYTHON.replace("train.py", "../../dialin.py"), {"bundle": bundle}, "there is no such file"),
        (PYTHON.replace(":train", ":trian"), {"bundle": bundle}, "did you mean 'train'"),
    ):
        answer = submit(client, text, params=params)
        assert answer.status_code in (404, 422), answer.text
        assert says in answer.json()["detail"]
    assert client.post("/api/v1/bundles", content=b"no archive").json()["code"] == "bundle"
    client.close()


def test_studies_of_the_command_line_are_shown_and_left_alone(client, settings):
    from dialin.specification import parse_spec, to_yaml
    from dialin.store.studies import Studies

    with Studies(settings.database) as studies:
        row = studies.create("small", to_yaml(parse_spec(SPEC)))
    assert client.get(f"/api/v1/studies/{row.id}").json()["owner"] is None
    answer = client.post(f"/api/v1/studies/{row.id}/stop")
    assert answer.status_code == 409
    assert "was not submitted to a server" in answer.json()["detail"]


def test_health_readiness_and_figures(client, jobs, trained):
    for prefix in ("", "/api/v1"):
        assert client.get(f"{prefix}/healthz").json() == {"status": "ok"}
        parts = {"database": "ok", "ray": "ok", "mlflow": "ok"}
        assert client.get(f"{prefix}/readyz").json() == {"status": "ok", **parts, "warnings": []}
    figures = client.get("/metrics").text
    assert 'dialin_studies{state="complete"} 1.0' in figures
    assert 'dialin_trials{outcome="complete"}' in figures
    from dialin.errors import ClusterError

    jobs.error = ClusterError("Ray does not answer")
    deadline = time.monotonic() + 20
    while client.get("/readyz").status_code != 503:  # what it says is up to two seconds old
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert client.get("/readyz").json()["ray"] == "Ray does not answer"


def test_spaces_and_knobs(client):
    spaces = client.get("/api/v1/search-spaces").json()
    assert "digits" in [space["name"] for space in spaces]
    assert all(space["yaml"] for space in spaces)
    assert "lr" in [knob["name"] for knob in client.get("/api/v1/knobs").json()]


def test_revoked_and_unknown_tokens_do_not_submit(client, tokens):
    token = tokens.create("ana", "submitter")
    assert submit(client, headers=bearer(token)).status_code == 201
    assert submit(client, headers=bearer("dialin_nobody")).status_code == 401
