"""What the commands print of studies of several metrics and with constraints."""

from __future__ import annotations

import io
import json

import pytest
import yaml
from rich.console import Console

from dialin.cli.follow import Replay
from dialin.cli.front_lines import constraint_lines
from dialin.cli.main import main
from dialin.client.folder import open_study
from dialin.client.local import LocalStudies
from dialin.errors import NoResultError, UsageError
from dialin.lifecycle import StudyState
from dialin.schemas import StudyInFull
from dialin.settings import Settings
from dialin.specification import parse_spec
from dialin.study_flow.progress import Progress, StudyClock
from tests.several_metrics import BOUNDED, ONE, TWO, store_study


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("DIALIN_SERVER", raising=False)
    return tmp_path / "out"


@pytest.fixture
def two(out):
    return store_study(Settings(out, out / "data")).id


def dialin(capsys, out, *words):
    code = main([*words, "--out", str(out)])
    return code, capsys.readouterr().out


def test_the_front_is_a_table_with_a_column_for_each_metric(capsys, out, two):
    code, text = dialin(capsys, out, "best", two)
    assert code == 0
    lines = text.splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("Pareto front"))
    assert lines[head] == "Pareto front (3 trials, the best by val_accuracy first)"
    assert [line.split() for line in lines[head + 1 : head + 5]] == [
        ["trial", "val_accuracy", "parameters", "memory", "epoch"],
        ["1", "0.9500", "50,000", "300", "3"],
        ["4", "0.9000", "20,000", "250", "3"],
        ["0", "0.7000", "1,000", "100", "3"],
    ]
    assert "constraints          memory at most 400 (1 trial violates it)" in lines
    spec = parse_spec(TWO)
    for count, counted in ((0, "no trial violates it"), (2, "2 trials violate it")):
        study = StudyInFull.model_construct(violations={"memory": count})
        assert constraint_lines(study, spec) == [f"memory at most 400 ({counted})"]
    assert any(line.startswith(f"one of them          dialin best {two} --trial 0 --yaml") for line in lines)


def test_show_marks_the_front_and_what_violates_a_constraint(capsys, out, two):
    _, text = dialin(capsys, out, "show", two)
    rows = {line.split()[0]: line.split() for line in text.splitlines() if " complete " in line}
    assert rows["1"][3:7] == ["0.9500", "50,000", "300", "front"]
    assert rows["3"][3:8] == ["0.9900", "900,000", "800", "violates", "memory"]
    assert "front" not in rows["2"]
    _, text = dialin(capsys, out, "show", two, "3")
    assert "parameters by epoch   1: 900,000  2: 900,000  3: 900,000" in text
    assert "it violates the constraints on memory" in text


def test_in_a_narrow_terminal_no_number_is_broken(capsys, monkeypatch, out, two):
    monkeypatch.setenv("COLUMNS", "100")
    _, text = dialin(capsys, out, "show", two)
    assert "trained all 3 epochs" in text
    monkeypatch.setenv("COLUMNS", "80")
    _, text = dialin(capsys, out, "show", two)
    assert "trained all 3 epochs" not in text
    row = next(line for line in text.splitlines() if line.startswith("3 "))
    assert row.split() == ["3", "complete", "3", "0.9900", "900,000", "800", "violates", "memory"]
    assert f"a wider terminal shows why each trial ended; of one of them: dialin show {two} TRIAL" in text


def test_one_configuration_of_the_front_is_chosen_by_its_trial(capsys, out, two):
    _, text = dialin(capsys, out, "best", two, "--trial", "4", "--yaml")
    assert "trial 4" in text.splitlines()[0]
    assert yaml.safe_load(text)["budget"]["trials"] == 1
    _, shown = dialin(capsys, out, "best", two, "--trial", "4")
    assert "configuration (trial 4, epoch 3 of 3)" in shown
    assert "parameters           20,000" in shown
    code = main(["best", two, "--trial", "2", "--out", str(out)])
    assert code == UsageError.exit_code
    assert f"trial 2 is not on the Pareto front of study {two}; allowed: 1, 4, 0" in capsys.readouterr().err


def test_json_has_the_front_and_nothing_more_with_one_metric(capsys, out, two):
    _, text = dialin(capsys, out, "best", two, "--json")
    data = json.loads(text)
    assert [point["trial"] for point in data["pareto"]] == [1, 4, 0]
    assert data["violations"] == {"memory": 1}
    assert data["best"]["values"] == {"val_accuracy": pytest.approx(0.95), "parameters": 50_000}
    one = store_study(Settings(out, out / "data"), ONE)
    _, text = dialin(capsys, out, "best", one.id, "--json")
    assert not {"pareto", "metrics", "constraints", "violations"} & json.loads(text).keys()
    assert json.loads(text)["best"].keys() <= {"trial", "value", "epoch", "expected", "params"}


def test_the_list_says_how_many_are_on_the_front(capsys, out, two):
    _, text = dialin(capsys, out, "list")
    assert "front of 3, val_accuracy 0.9500" in text


def test_without_a_trial_that_meets_the_constraints_best_says_so(capsys, out):
    study_id = store_study(Settings(out, out), BOUNDED, [(0.9, 1, 500)] * 2, state=StudyState.FAILED).id
    _, text = dialin(capsys, out, "best", study_id)
    assert "no trial meets the constraints (2 violate memory), so there is no best configuration" in text
    code = main(["best", study_id, "--yaml", "--out", str(out)])
    assert code == NoResultError.exit_code
    assert "no trial that has not failed meets the constraints (2 violate memory)" in capsys.readouterr().err


def test_a_plan_says_what_is_wanted(capsys, tmp_path, out):
    spec = tmp_path / "two.yaml"
    spec.write_text(TWO)
    _, text = dialin(capsys, out, "plan", str(spec))
    wanted = "maximize val_accuracy and minimize parameters on synthetic, with memory at most 400"
    assert text.splitlines()[0] == f"two: {wanted}"


def test_from_python_the_front_is_a_list_and_a_table_has_a_column_for_each_metric(out, two):
    study = open_study(two, out=out)
    assert [point.trial for point in study.pareto()] == [1, 4, 0]
    assert study.best().trial == 1
    assert study.best(4).values == {"val_accuracy": pytest.approx(0.9), "parameters": 20_000}
    assert "trial 0" in study.best_yaml(0)
    with pytest.raises(UsageError, match="allowed: 1, 4, 0"):
        study.best(3)
    table = study.to_dataframe()
    assert list(table["metrics_memory"]) == [100, 300, 200, 800, 250, 210]
    assert list(table["violated"]) == [[], [], [], ["memory"], [], []]
    assert study.curve()["best"].is_monotonic_increasing


def test_watching_tells_of_every_metric_and_of_the_front(out, two):
    file = io.StringIO()
    with LocalStudies(Settings(out, out / "data")) as studies:
        study = studies.study(two)
        clock = StudyClock(0.0)
        with Progress(Console(file=file, width=300), clock, late=False) as progress:
            replay = Replay(progress, study, clock)
            for number, event in enumerate(studies.events(two)):
                if event.kind == "epoch" and number == 0:
                    assert set(event.data["others"]) == {"parameters", "memory"}
                if event.kind != "epoch":
                    continue
                replay._plan()
                replay.take(event)
            text = progress._line()
    assert "front of 3 trials: val_accuracy 0.9500 (trial 1), parameters 1,000 (trial 0)" in text
