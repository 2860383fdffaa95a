"""The command line as a person uses it: processes, exit codes, what is printed where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

SPACE = """name: mine
objective: {dataset: synthetic}
space:
  lr: {min: 1e-4, max: 1, log: true}
  optimizer: [sgd, adam]
budget: {trials: 6, epochs: 3}
resources: {concurrency: 2}
"""


@pytest.fixture
def spec_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SPACE)
    return path


def test_a_run_for_machines_and_reading_it_back(dialin, spec_file, tmp_path):
    done = dialin("run", "mine.yaml", "--json", "--trials", "5", "--set", "budget.epochs=4")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == {
        "study_id", "state", "metric", "mode", "best", "test", "test_trial", "test_looks", "trials", "epochs", "seconds", "paths",
    }  # fmt: skip
    assert sum(result["trials"].values()) == 5
    assert result["epochs"]["full"] == 20
    assert set(result["test"]) == {"accuracy", "loss"}
    assert all(os.path.exists(path) for path in result["paths"].values())  # noqa: PTH110
    assert result["paths"]["storage"] == str(tmp_path / "dialin-data" / "dialin.db")

    best = json.loads(dialin("best", result["study_id"], "--json", check=True).stdout)
    assert best == result
    listed = json.loads(dialin("list", "--json", check=True).stdout)
    assert [row["study_id"] for row in listed] == [result["study_id"]]
    shown = json.loads(dialin("show", "last", "--json", check=True).stdout)
    assert len(shown["trial_list"]) == 5
    assert {trial["state"] for trial in shown["trial_list"]} <= {"complete", "stopped", "diverged"}

    text = dialin("best", "mine", check=True).stdout
    assert f"best configuration (trial {result['best']['trial']}" in text
    assert "mlflow ui --backend-store-uri sqlite:///" in text
    table = dialin("show", "mine", check=True).stdout
    assert "why it ended" in table
    assert result["study_id"] in dialin("list", check=True).stdout


def test_a_run_for_a_person(dialin, spec_file, tmp_path):
    done = dialin("run", "mine.yaml", "--runner", "inline", "--out", "elsewhere")
    assert done.returncode == 0, done.stderr
    for text in ("6 of 6 trials started", "best configuration (trial", "validation accuracy", "test accuracy", "saved by stopping early",
                 "elsewhere/studies/mine-", "best_config.yaml", "mlflow ui --backend-store-uri"):  # fmt: skip
        assert text in done.stdout
    assert "\x1b[" not in done.stdout
    assert done.stderr == ""
    assert (tmp_path / "elsewhere" / "dialin.db").exists()


def test_plan_is_a_dry_run(dialin, spec_file, tmp_path):
    done = dialin("plan", "mine.yaml", check=True)
    for text in (
        "lr",
        "0.0001 to 1, log",
        "one of sgd, adam",
        "epochs        up to 3 a trial; compared after epochs 1",
    ):
        assert text in done.stdout
    data = json.loads(dialin("plan", "digits", "--json", check=True).stdout)
    assert (data["trials"], data["epochs"], data["rungs"], data["most_epochs"]) == (30, 9, [1, 3], 270)
    assert data["knobs"]["momentum"]["when"] == "when optimizer is sgd or rmsprop"
    assert {path.name for path in tmp_path.iterdir()} == {"mine.yaml"}


def test_plan_says_which_sampler_and_where_the_data_lies(dialin, spec_file):
    assert "sampler       gp (chosen by auto)" in dialin("plan", "mine.yaml", check=True).stdout
    assert json.loads(dialin("plan", "digits", "--json", check=True).stdout)["sampler"] in ("gp", "tpe")
    shown = dialin("plan", "fashion_mnist", "--data-dir", "here", check=True).stdout
    assert "here yet; the first run downloads it" in shown
    spec_file.write_text(SPACE.replace("dataset: synthetic", "dataset: 'npz:nothere.npz'"))
    done = dialin("plan", "mine.yaml")
    assert (done.returncode, done.stderr) == (1, "error: nothere.npz: no such file\n")


def test_plan_says_where_the_search_begins(dialin, spec_file):
    few = dialin("plan", "mine.yaml", check=True).stdout  # of six trials one default is a quarter
    assert "first trials  trial 0 takes these values\n" in "".join(f"{line.rstrip()}\n" for line in few.splitlines())
    shown = dialin("plan", "mine.yaml", "--trials", "8", check=True).stdout.splitlines()
    begins = shown.index(next(line for line in shown if line.startswith("prior")))
    assert [line.rstrip() for line in shown[begins : begins + 4]] == [
        "prior         optimizer sgd",
        "              lr 0.1 where optimizer is sgd, else 0.001",
        "first trials  trial 0 takes these values; trial 2 takes them with optimizer",
        "              adam; those between come from the whole space",
    ]
    data = json.loads(dialin("plan", "mine.yaml", "--trials", "8", "--json", check=True).stdout)
    assert data["prior"]["lr"]["centre"] == "0.1 where optimizer is sgd, else 0.001"
    assert data["prior"]["lr"]["source"].startswith("sgd: He et al. 2016")
    assert data["first_trials"] == [
        {"trial": 0, "params": {"lr": 0.1, "optimizer": "sgd"}, "given": {}},
        {"trial": 2, "params": {"lr": 0.001, "optimizer": "adam"}, "given": {"optimizer": "adam"}},
    ]
    stated = dialin(
        "plan",
        "mine.yaml",
        "--set",
        "prior.lr={around: 0.01, spread: 3x}",
        "--set",
        "search.enqueue=[{lr: 0.2}]",
        check=True,
    ).stdout
    assert "lr 0.01, spread 3x (this space)" in stated
    assert "first trials  after the 1 of search.enqueue, trial 1 takes these values" in stated
    assert (
        "prior         none, as the space says" in dialin("plan", "mine.yaml", "--set", "prior=off", check=True).stdout
    )
    unused = dialin("plan", "mine.yaml", "--set", "search.sampler=random", "--json", check=True).stdout
    assert (json.loads(unused)["prior"], json.loads(unused)["first_trials"]) == ({}, [])


def test_a_mistake_in_a_prior_is_told_with_its_line(dialin, spec_file):
    spec_file.write_text(SPACE + "prior: {lr: 3}\n")
    done = dialin("plan", "mine.yaml")
    told = "error: mine.yaml: line 8: prior.lr: 3.0 is not a value of lr in this space: 0.0001 to 1, log\n"
    assert (done.returncode, done.stderr) == (2, told)


def test_without_a_command(dialin):
    done = dialin()
    assert (done.returncode, done.stderr) == (0, "")
    assert "run a server here" in done.stdout
    assert dialin("--version", check=True).stdout.startswith("dialin 0.")


def test_one_knob(dialin):
    shown = dialin("knobs", "lr", check=True).stdout
    assert "the learning rate; the highest one of its schedule" in shown
    assert "Smith" in shown
    assert "search begins at 0.1 where optimizer is sgd or nesterov" in shown
    assert "because          sgd: He et al. 2016" in shown
    assert json.loads(dialin("knobs", "lr", "--json", check=True).stdout)["name"] == "lr"
    assert "did you mean 'momentum'?" in dialin("knobs", "momentun").stderr
    widest = max(len(line) for line in dialin("knobs", check=True).stdout.splitlines())
    assert widest > 80  # a pipe is cut nowhere


def test_plan_warns(dialin, spec_file):
    spec_file.write_text(SPACE.replace("[sgd, adam]", "[sgd, adam]\n  momentum: {min: 0.1, max: 0.9}"))
    assert (
        "warning: space.momentum: does nothing when optimizer is adam" in dialin("plan", "mine.yaml", check=True).stdout
    )


def test_the_range_test_of_one_configuration(dialin, tmp_path):
    done = dialin(
        "lr-range-test", "synthetic", "--set", "optimizer=sgd", "--set", "batch_size=128", "--plot", "a.svg", check=True
    )
    assert "suggested rate" in done.stdout
    assert "suggested bounds" in done.stdout
    assert "confidence high" in done.stdout
    assert (tmp_path / "a.svg").read_text().startswith("<svg ")
    found = json.loads(
        dialin("lr-range-test", "synthetic", "--json", "--method", "third", "--seeds", "2", check=True).stdout
    )
    assert found["rate"] == pytest.approx(found["reading"]["loss_minimum"] / 3)
    assert found["bounds"] == {"low": pytest.approx(found["rate"] / 10), "high": pytest.approx(found["rate"] * 10)}
    assert len(found["curves"]) == 2
    assert "lr" not in found["params"]
    assert dialin("lr-range-test", "synthetic", "--max", "1e-9").returncode == 2


def test_a_claim_is_judged_and_a_trial_is_shown(dialin, tmp_path):
    text = SPACE.replace(
        "  lr: {min: 1e-4, max: 1, log: true}\n  optimizer: [sgd, adam]", "  optimizer: sgd\n  lr: [0.5, 1e-4]"
    )
    text += "search: {sampler: grid}\nearly_stopping: off\n"
    text += "claim: {says: a rate of 0.5 beats 0.0001, better: {lr: 0.5}, than: {lr: 1e-4}}\n"
    (tmp_path / "claim.yaml").write_text(text)
    done = dialin("run", "claim.yaml", "--runner", "inline", "--trials", "10", check=True)
    assert "claim                a rate of 0.5 beats 0.0001" in done.stdout
    assert "the claim held here: val_accuracy" in done.stdout
    assert "the claim held here" in dialin("show", "mine", check=True).stdout
    shown = dialin("show", "mine", "1", check=True).stdout
    assert shown.startswith("trial 1 of mine-")
    assert "the doctor found nothing" in shown
    assert json.loads(dialin("show", "mine", "1", "--json", check=True).stdout)["trial"] == 1
    missing = dialin("show", "mine", "77")
    assert (missing.returncode, "its trials: 0 to 9" in missing.stderr) == (2, True)


def test_knobs_lists_the_catalogue(dialin):
    names = {row["name"] for row in json.loads(dialin("knobs", "--json", check=True).stdout)}
    assert {"lr", "momentum", "augmentation", "label_smoothing"} <= names
    lines = dialin("knobs", check=True).stdout.splitlines()  # no terminal is 80 columns wide: a line for each
    assert {line.split()[0] for line in lines} >= names
    assert "Loshchilov" in dialin("knobs", "weight_decay", check=True).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "digts"], 2, "error: 'digts' is neither a file nor a shipped search space; did you mean 'digits'?"),
        (["plan", "digits", "--set", "budget.epohs=3"], 2, "budget.epohs: unknown key 'epohs'; did you mean 'epochs'?"),
        (["run", "synthetic", "--trials", "0"], 2, "budget.trials: 0 is below 1, the least (from --set)"),
        (["run", "synthetic", "--trials", "many"], 2, "argument --trials: invalid int value: 'many'"),
        (["run", "synthetic", "--runner", "rya"], 2, "did you mean 'ray'?"),
        (["rnu"], 2, "did you mean 'run'?"),
        (["show", "nothing"], 2, "error: there is no study 'nothing': "),
        (["run", "synthetic", "--set", "objective.dataset='npz:/nowhere.npz'"], 1, "/nowhere.npz does not exist"),
    ],
)
def test_mistakes_are_named(dialin, arguments, code, message):
    done = dialin(*arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_list_of_nothing(dialin, tmp_path):
    (tmp_path / "file").write_text("")
    refused = dialin("list", "--out", "file")
    assert (refused.returncode, refused.stderr) == (
        2,
        f"error: {tmp_path / 'file'} is a file; studies are kept in a folder\n",
    )
    assert "no studies yet" in dialin("list", check=True).stdout
    assert json.loads(dialin("list", "--json", check=True).stdout) == []


def test_a_study_whose_trials_all_fail_exits_with_1(dialin, spec_file):
    done = dialin("run", "mine.yaml", "--runner", "inline", "--set", "objective.epoch_seconds=-1")
    assert done.returncode == 2
    done = dialin(
        "run",
        "mine.yaml",
        "--runner",
        "inline",
        "--set",
        "optimizer=sgd",
        "--set",
        "lr=100",
        "--set",
        "early_stopping=off",
        "--set",
        "search.sampler=grid",
        "--json",
    )
    assert done.returncode == 1
    result = json.loads(done.stdout)
    assert (result["state"], result["best"] and result["best"]["epoch"]) == ("failed", 1)
    assert result["trials"]["diverged"] == 6


@pytest.mark.parametrize(
    ("number", "runner"), [(signal.SIGINT, "ray"), (signal.SIGTERM, "ray"), (signal.SIGINT, "inline")]
)
def test_an_interrupt_ends_cleanly(spec_file, tmp_path, number, runner):
    command = [sys.executable, "-m", "dialin", "run", "mine.yaml", "--runner", runner, "--trials", "200"]
    command += [
        "--set",
        "objective.epoch_seconds=0.1",
        "--set",
        "optimizer=adam",
        "--set",
        "lr=0.001",
        "--set",
        "search.sampler=grid",
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    out = (tmp_path / "stdout").open("w+")
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    while "best val_accuracy" not in (tmp_path / "stdout").read_text() and time.monotonic() < deadline:
        assert process.poll() is None, (tmp_path / "stdout").read_text()
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(60) == 130
    out.close()
    text = (tmp_path / "stdout").read_text()
    assert text.count("the study is ending; trials that are being trained can continue later") == 1
    assert "interrupted" in text
    assert "interrupted: interrupted" not in text
    assert "best configuration" in text
    assert "Traceback" not in text
    done = subprocess.run(
        [sys.executable, "-m", "dialin", "show", "mine", "--json"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    shown = json.loads(done.stdout)
    assert shown["state"] == "interrupted"
    assert "running" not in {trial["state"] for trial in shown["trial_list"]}
    assert {trial["state"] for trial in shown["trial_list"]} & {"waiting"}


def test_a_token_is_shown_once_and_listed_without_its_secret(dialin, tmp_path):
    made = dialin("token", "create", "ana", "--role", "submitter", "--out", "here", check=True).stdout
    secret = made.splitlines()[0]
    assert secret.startswith("dialin_")
    listed = dialin("token", "list", "--out", "here", check=True).stdout
    assert listed == "ana  submitter\n"
    again = dialin("token", "create", "ana", "--role", "admin", "--out", "here")
    assert (again.returncode, again.stderr) == (
        1,
        "error: 'ana' has a token already; revoke it with: dialin token revoke ana\n",
    )
    assert secret.encode() not in (tmp_path / "here" / "dialin.db").read_bytes()
    assert "has no token now" in dialin("token", "revoke", "ana", "--out", "here", check=True).stdout
    assert dialin("token", "list", "--json", "--out", "here", check=True).stdout == "[]\n"
    wrong = dialin("token", "create", "ana", "--role", "root", "--out", "here")
    assert wrong.returncode == 2
    assert "root" in wrong.stderr
