"""The commands against a real server; only Ray is not there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dialin.cli import main as cli
from dialin.cli.follow import Replay
from dialin.client.answers import read_answer
from dialin.client.client import Client
from dialin.errors import ConflictError, NoResultError, ProtocolError, SpecError, UsageError
from dialin.schemas import Event, Trial
from dialin.study_flow.progress import Progress, StudyClock
from tests.client.wire import SPACE, TRAIN
from tests.others import MLFLOW
from tests.served import serving
from tests.server.harness import wait_until

pytestmark = MLFLOW
CLAIM = "claim: {says: a rate of 0.5 beats 0.0001, better: {lr: 0.5}, than: {lr: 1e-4}}\n"
GRID = SPACE.replace("{min: 1e-4, max: 1, log: true}", "[0.5, 1e-4]") + "search: {sampler: grid}\n" + CLAIM
LONG = SPACE.replace("synthetic}", "synthetic, epoch_seconds: 0.2}").replace("trials: 6", "trials: 500")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server's address and its folder, with one study that is complete."""
    out = tmp_path_factory.mktemp("served")
    with serving(out, allow_code=True) as url:
        with Client(url) as client:
            spec = out / "grid.yaml"
            spec.write_text(GRID)
            client.submit(spec, priority=3).wait(progress=False, timeout=120)
        yield url, out


@pytest.fixture
def dialin(served, monkeypatch, capsys, tmp_path):
    """Runs a command in this process: its exit code, what it printed, and what it complained of."""
    monkeypatch.setenv("DIALIN_SERVER", served[0])
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        code = cli.main(arguments)
        return code, *capsys.readouterr()

    return run


def test_a_study_is_submitted_watched_and_shown(dialin, served):
    Path("mine.yaml").write_text(SPACE)
    code, out, err = dialin("submit", "mine.yaml", "--set", "budget.trials=4", "--watch", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert (result["state"], sum(result["trials"].values())) == ("complete", 4)
    assert f"study {result['study_id']}: 4 trials of up to 3 epochs on synthetic" in err
    assert "4 of 4 trials started" in err
    assert json.loads(dialin("best", result["study_id"], "--json")[1]) == result
    assert dialin("watch", result["study_id"])[0] == 0
    assert "4 of 4 trials started" in dialin("logs", result["study_id"])[1]
    assert "driver.log" in json.loads(dialin("logs", result["study_id"], "--json", "--tail", "1")[1])


@pytest.mark.parametrize("arguments", [("show", "GRID"), ("show", "GRID", "1"), ("best", "GRID", "--yaml")])
def test_what_a_server_shows_is_what_the_folder_shows(dialin, served, arguments):
    arguments = [argument.replace("GRID", _grid(served)) for argument in arguments]
    remote = dialin(*arguments)[1]
    local = dialin(*arguments, "--out", str(served[1]))[1]
    places = ("best configuration   ", "see every trial", "its page", "in MLflow")
    assert _without(remote, places) == _without(local, places)
    assert len(remote.splitlines()) > 10


def test_machines_get_the_same_from_both(dialin, served):
    study = _grid(served)
    for arguments in (["show", study, "--json"], ["show", study, "0", "--json"], ["best", study, "--json"]):
        remote = json.loads(dialin(*arguments)[1])
        local = json.loads(dialin(*arguments, "--out", str(served[1]))[1])
        for data in (remote, local):
            data.pop("paths", None)
        assert remote == local


def test_the_claim_and_the_page_are_shown(dialin, served):
    text = dialin("show", _grid(served))[1]
    assert "the claim cannot be judged: n = 3 against 3; at least 5 a side are needed" in text
    assert f"its page             {served[0]}/studies/{_grid(served)}" in text


def test_the_list(dialin, served):
    rows = json.loads(dialin("list", "--json", "--state", "complete")[1])
    assert {"study_id", "name", "state", "best", "trials", "owner", "priority"} <= set(rows[0])
    assert (rows[-1]["name"], rows[-1]["priority"]) == ("mine", 3)
    assert _grid(served) in dialin("list")[1]
    assert dialin("list", "--state", "failed")[1] == "no study is failed\n"


def test_stop_resume_extend(dialin, served):
    Path("long.yaml").write_text(LONG)
    code, out, _ = dialin("submit", "long.yaml", "--json", "--priority", "1")
    study = json.loads(out)["id"]
    assert (code, json.loads(out)["state"]) == (0, "queued")
    with Client(served[0]) as client:
        handle = client.study(study)
        next(event for event in handle.events() if event.kind == "epoch")
        wait_until(lambda: handle.refresh().info.best is not None, 10, "its value")  # answers are up to a second old
        assert handle.best().trial >= 0
        assert dialin("stop", study)[:2] == (0, f"study {study} was asked to stop\n")
        assert handle.wait(progress=False, timeout=60).state == "interrupted"
        code, out, _ = dialin("stop", study)
        assert code == 1
        assert dialin("watch", study)[0] == 130
        # Its row says that it has ended before its job has: the server lets go of that at its next look.
        assert f"study {study} queued" in _allowed(lambda: dialin("resume", study))
        handle.refresh().stop()
        handle.wait(progress=False, timeout=60)
        code, out, err = dialin("extend", study, "--epochs", "1")
        assert (code, "the study has 3 already" in err) == (2, True)
        extended = _allowed(lambda: dialin("extend", study, "--trials", "+1", "--json"))
        assert json.loads(extended)["trials"]["budget"] == 501
        handle.refresh().stop()
        handle.wait(progress=False, timeout=60)
        _allowed(lambda: (0, handle.archive(), ""))
        assert study not in dialin("list")[1]


def test_a_function_of_ones_own(served, tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    spec = 'name: own\nobjective: {python: "train.py:train", metric: score}\nspace: {x: [1, 2]}\n'
    (tmp_path / "own.yaml").write_text(spec + "budget: {trials: 2, epochs: 1}\nsearch: {sampler: grid}\n")
    with Client(served[0]) as client:
        study = client.submit(tmp_path / "own.yaml").wait(progress=False, timeout=120)
        assert (study.state, study.info.reason) == ("complete", "")
        assert study.best().params == {"x": 2}
        assert list(study.trials()["params_x"]) == [1, 2]
        assert cli.main(["show", study.id, "--json", "--server", served[0]]) == 0


def test_errors_are_the_servers(served, tmp_path):
    (tmp_path / "bad.yaml").write_text(SPACE.replace("synthetic", "npz:../../x.npz"))
    with Client(served[0]) as client:
        with pytest.raises(SpecError, match="line 2: objective.dataset: .* is not below the server's data folder"):
            client.submit(tmp_path / "bad.yaml")
        study = client.study(_grid(served))
        with pytest.raises(ConflictError):
            study.resume()
        with pytest.raises(UsageError, match="priority"):
            client.submit("synthetic", priority=1000)
        assert {space.name for space in client.spaces()} >= {"digits", "synthetic"}
        assert "lr" in {knob.name for knob in client.knobs()}
        assert study.curve()["best"].is_monotonic_increasing


def test_a_study_without_a_result(dialin, served):
    with Client(served[0]) as client:
        handle = client.submit(
            {"name": "none", "objective": {"dataset": "synthetic", "epoch_seconds": 3600}, "space": {"lr": 0.1}}
        )
        with pytest.raises(NoResultError, match="no trial has reported a finite value yet"):
            handle.best()
        assert "there is no best configuration" in dialin("best", handle.id)[1]
        assert dialin("best", handle.id, "--yaml")[0] == 1
        handle.stop()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit", "digts"], "did you mean 'digits'?"),
        (["show", "nothing"], "error: no study 'nothing'"),
        (["resume", "mine", "--runner", "inline"], "--runner inline: the server decides where trials run"),
        (["extend", "mine", "--data-dir", "x"], "--data-dir x: the server decides"),
        (["list", "--state", "runing"], "error: STATE 'runing': did you mean 'running'?"),
        (["list", "--server", "localhost"], "error: server 'localhost'; allowed: http://HOST:PORT or https://HOST"),
        (["list", "--server", "http://x", "--out", "y"], "--server http://x and --out y"),
        (["logs", "mine", "--tail", "0"], "argument --tail: '0'; allowed: 1 to 100000"),
    ],
)
def test_mistakes_are_named(dialin, arguments, message):
    code, out, err = dialin(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_submit_needs_a_server(dialin, monkeypatch):
    monkeypatch.delenv("DIALIN_SERVER")
    code, _, err = dialin("submit", "digits")
    assert code == 2
    assert "--server URL, or DIALIN_SERVER; without one: dialin run digits" in err


def test_a_folder_on_the_command_line_wins_over_the_environments_server(dialin):
    assert json.loads(dialin("list", "--out", "empty", "--json")[1]) == []


def test_the_command_line_knows_no_client_until_it_needs_one():
    code = (
        "import sys, dialin.cli.main; print(*[name for name in ('httpx', 'dialin.cli.backend') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("data", [{}, {"trial": 0}, {"trial": "x", "values": {}}, []])
def test_trials_that_cannot_be_read(data):
    with pytest.raises(ProtocolError, match="the server answers with a trial that cannot be read: "):
        read_answer(Trial, data, "a trial")


def test_events_that_cannot_be_read(served):
    from rich.console import Console

    with Client(served[0]) as client:
        clock = StudyClock(0.0)
        replay = Replay(Progress(Console(quiet=True), clock), client.study(_grid(served)).detail(), clock)
        replay.take(Event(id="1", kind="from the future", data={}))
        with pytest.raises(ProtocolError, match="an event 'epoch' cannot be read"):
            replay.take(Event(id="2", kind="epoch", data={"trial": 0}))


def _allowed(command):
    """What a command prints once the server no longer says that there is a conflict."""
    deadline = time.monotonic() + 60
    while True:
        try:
            code, out, err = command()
        except ConflictError as error:
            code, out, err = 1, "", str(error)
        if code == 0 or time.monotonic() > deadline:
            assert code == 0, err
            return out
        time.sleep(0.05)


def _grid(served):
    """The study whose trials are all known, once MLflow has it all: how far it lags is shown too."""
    with Client(served[0]) as client:
        study = next(study for study in client.studies() if study.info.priority == 3)
        wait_until(lambda: study.refresh().info.mirror_lag == 0, 60, "MLflow has everything")
        return study.id


def _without(text, beginnings):
    return [line.rstrip() for line in text.splitlines() if not line.startswith(beginnings)]
