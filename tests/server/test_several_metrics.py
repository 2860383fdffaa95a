"""Studies of several metrics and with constraints, in the API and on the page."""

from __future__ import annotations

import re

import pytest
import yaml

from dialin.lifecycle import StudyState
from tests.several_metrics import BOUNDED, MEASURED, ONE, THREE, TWO, store_study


def get(client, path, **options):
    answer = client.get(path, **options)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.fixture
def two(client, settings):
    return store_study(settings).id


def test_a_study_has_its_metrics_its_constraints_and_its_front_with_a_link_to_each_configuration(client, two):
    study = get(client, f"/api/v1/studies/{two}").json()
    assert study["metrics"] == [{"name": "val_accuracy", "mode": "max"}, {"name": "parameters", "mode": "min"}]
    assert study["constraints"] == {"memory": {"min": None, "max": 400}}
    assert study["violations"] == {"memory": 1}
    assert (study["best"], study["front"]) == (0.95, 3)
    assert [(point["trial"], point["values"]["parameters"]) for point in study["pareto"]] == [
        (1, 50_000),
        (4, 20_000),
        (0, 1_000),
    ]
    point = study["pareto"][1]
    found = get(client, point["link"]).json()
    assert (found["trial"], found["values"], found["params"]) == (4, point["values"], point["params"])
    text = get(client, point["link"], headers={"Accept": "application/yaml"}).text
    again = yaml.safe_load(text)
    assert again["space"]["lr"] == pytest.approx(point["params"]["lr"])
    assert "trial 4" in text
    listed = get(client, "/api/v1/studies").json()["studies"][0]
    assert (listed["front"], listed["best"], len(listed["metrics"])) == (3, 0.95, 2)


def test_a_trial_that_is_not_on_the_front_is_refused_by_its_number(client, two):
    for accept in ("application/json", "application/yaml"):
        answer = client.get(f"/api/v1/studies/{two}/best?trial=3", headers={"Accept": accept})
        assert answer.status_code == 400
        assert answer.json()["detail"] == f"trial 3 is not on the Pareto front of study {two}; allowed: 1, 4, 0"


def test_trials_have_every_metric_and_are_sorted_by_any_of_them(client, two):
    own = f"/api/v1/studies/{two}/trials"
    trials = get(client, own).json()["trials"]
    assert trials[3]["metrics"] == {"val_accuracy": 0.99, "parameters": 900_000, "memory": 800}
    assert [trial["violated"] for trial in trials] == [[], [], [], ["memory"], [], []]
    assert trials[0]["others"]["parameters"] == {"1": 1000, "2": 1000, "3": 1000}
    by_size = get(client, f"{own}?sort=metrics.parameters&limit=4").json()
    assert [trial["trial"] for trial in by_size["trials"]] == [0, 4, 5, 2]
    by_memory = get(client, f"{own}?sort=-metrics.memory").json()
    assert [trial["trial"] for trial in by_memory["trials"]][:2] == [3, 1]
    answer = client.get(f"{own}?sort=metrics.parametres")
    assert answer.status_code == 400
    assert "did you mean 'metrics.parameters'?" in answer.json()["detail"]


def test_the_curve_is_the_hypervolume(client, two):
    curve = get(client, f"/api/v1/studies/{two}/curve").json()
    assert (curve["metric"], curve["mode"]) == ("hypervolume", "max")
    assert set(curve["reference"]) == {"val_accuracy", "parameters"}
    volumes = [point["best"] for point in curve["points"]]
    assert volumes == sorted(volumes)
    assert 0 < volumes[-1] <= 1


def test_without_a_trial_that_meets_the_constraints_the_best_one_says_so(client, settings):
    study_id = store_study(settings, BOUNDED, [(0.9, 1, 500), (0.8, 1, 600)], state=StudyState.FAILED).id
    answer = client.get(f"/api/v1/studies/{study_id}/best")
    assert answer.status_code == 409
    assert answer.json()["detail"].endswith("no trial that has not failed meets the constraints (2 violate memory)")
    page = get(client, f"/studies/{study_id}").text
    assert page.count("no trial meets the constraints yet") >= 2  # the tile, and the chart of the hypervolume
    assert "no finite value" not in page
    assert "memory at most 400" in page
    assert "violates memory" in page


def test_one_metric_with_a_constraint_has_a_best_trial_that_meets_it(client, settings):
    study_id = store_study(settings, BOUNDED).id
    study = get(client, f"/api/v1/studies/{study_id}").json()
    assert study["best"] == 0.95
    assert not {"front", "pareto", "metrics"} & study.keys()
    curve = get(client, f"/api/v1/studies/{study_id}/curve").json()
    assert (curve["metric"], curve.get("reference"), curve["points"][-1]["best"]) == ("val_accuracy", None, 0.95)
    page = get(client, f"/studies/{study_id}").text
    assert "Pareto" not in page
    assert "memory at most 400" in page
    (row,) = re.findall(r'<tr data-key="t1"[^>]*>', page)
    assert "is-best" in row


def part(page, name):
    (found,) = re.findall(rf'<div id="part-{name}".*?\n</div>', page, re.DOTALL)
    return found


@pytest.mark.parametrize(("text", "plots"), [(TWO, 1), (THREE, 3)])
def test_the_page_draws_the_front_and_marks_it_on_the_leaderboard(client, settings, text, plots):
    study_id = store_study(settings, text).id
    page = get(client, f"/studies/{study_id}").text
    assert page.count('id="pareto-0-title"') == 1
    assert len(re.findall(r'id="pareto-\d-title"', page)) == plots
    assert "Hypervolume so far" in page
    assert "Learning curves of val_accuracy" in page
    front = [int(number) for number in re.findall(r'<tr data-key="t(\d+)" class="is-best">', page)]
    assert front[:2] == [1, 4]
    assert len(front) == {1: 3, 3: 4}[plots]
    assert page.count('class="on-front"') == len(front)
    goals = {1: "val_accuracy and minimize parameters", 3: "val_accuracy, minimize parameters and minimize epoch_"}
    assert f"maximize {goals[plots]}" in page
    assert "50,000" in page


def test_each_configuration_of_the_front_is_a_link_away_without_a_script(client, two):
    page = get(client, f"/studies/{two}").text
    assert "Configuration of trial 1" in page
    links = re.findall(r'<a href="(/studies/[^"]*point=(\d+)#h-config)"', page)
    assert [int(number) for _, number in links] == [1, 4, 0]
    other = get(client, links[2][0].replace("&amp;", "&").partition("#")[0]).text
    assert "Configuration of trial 0" in other
    assert "trial 0" in part(other, "config")
    assert "point=0" in re.search(r'data-live="([^"]*)"', other)[1]  # a refresh shows the same one
    assert "Configuration of trial 1" in get(client, f"/studies/{two}?point=3").text  # not on the front


def test_the_live_parts_are_those_of_the_page(client, two):
    page, live = (get(client, f"/studies/{two}{path}").text for path in ("", "/live"))
    names = set(re.findall(r'id="part-([a-z]+)"', page))
    assert "pareto" in names
    assert names == set(re.findall(r'id="part-([a-z]+)"', live))


def test_the_list_of_trials_sorts_by_each_metric(client, two):
    page = get(client, f"/studies/{two}/trials?sort=metrics.parameters").text
    numbers = [int(number) for number in re.findall(r'<th scope="row">(\d+)</th>', page)]
    assert numbers == sorted(range(len(MEASURED)), key=lambda number: MEASURED[number][1])
    assert 'aria-sort="ascending"><a href="/studies/' in page
    assert "violates memory" in page


def test_a_plan_says_what_is_wanted_and_with_one_metric_nothing_more(client):
    plan = client.post("/api/v1/plan", content=TWO, headers={"Content-Type": "application/yaml"}).json()
    assert [metric["name"] for metric in plan["objective"]["metrics"]] == ["val_accuracy", "parameters"]
    assert plan["constraints"] == {"memory": {"min": None, "max": 400}}
    plan = client.post("/api/v1/plan", content=ONE, headers={"Content-Type": "application/yaml"}).json()
    assert "metrics" not in plan["objective"]
    assert "constraints" not in plan


def test_a_running_study_without_trials_is_shown(client, settings):
    study_id = store_study(settings, measured=[], state=None).id
    page = get(client, f"/studies/{study_id}").text
    assert "no trial has values of both metrics yet" in page
    assert get(client, f"/api/v1/studies/{study_id}").json()["pareto"] == []
    assert client.get(f"/api/v1/studies/{study_id}/best").status_code == 409
