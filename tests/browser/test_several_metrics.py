"""A study of several metrics as a person sees it: the front, its configurations, the order of its trials."""

from __future__ import annotations

import re

import pytest
import yaml

SPEC = """\
name: two
objective: {dataset: synthetic, metrics: [val_accuracy, parameters]}
constraints: {memory: {max: 1e9}}
space:
  lr: {min: 1e-4, max: 1e-2, log: true}
  batch_size: {min: 16, max: 128, log: true}
  width: {min: 16, max: 128, log: true}
search: {sampler: random}
budget: {trials: 12, epochs: 4}
"""


# Names that no phone has room for, so that the cells after them stand beyond its edge.
WIDE = """\
name: wide
objective: {dataset: synthetic, metrics: [val_accuracy, val_loss, parameters, epoch_seconds]}
constraints: {memory: {max: 1e9}, parameters: {max: 1e9}}
space:
  lr: {min: 1e-4, max: 1e-2, log: true}
  width: {min: 16, max: 128, log: true}
search: {sampler: random}
budget: {trials: 6, epochs: 2}
"""


@pytest.fixture(scope="module")
def complete(site, tmp_path_factory):
    return _complete(site, tmp_path_factory.mktemp("spec") / "two.yaml", SPEC)


@pytest.fixture(scope="module")
def wide(site, tmp_path_factory):
    return _complete(site, tmp_path_factory.mktemp("spec") / "wide.yaml", WIDE)


def _complete(site, path, spec):
    from dialin.client.client import Client

    path.write_text(spec)
    with Client(site) as client:
        study = client.submit(path)
        study.wait(progress=False, timeout=120)
        assert study.info.state == "complete"
        return study.id


def test_each_configuration_of_the_front_is_one_click_away(page, client, complete):
    from playwright.sync_api import expect

    study = client.study(complete)
    front = [point.trial for point in study.pareto()]
    page.goto(f"/studies/{complete}")
    expect(page.get_by_role("heading", name="Pareto front")).to_be_visible()
    expect(page.locator("#part-pareto .front")).to_have_count(len(front))
    expect(page.locator("#part-pareto .staircase")).to_have_count(1)
    expect(page.locator("#part-leaders .on-front")).to_have_count(len(front))
    expect(page.get_by_role("heading", name="Hypervolume so far")).to_be_visible()
    last = front[-1]
    page.get_by_role("navigation", name="Trials of the Pareto front").get_by_role("link").nth(len(front) - 1).click()
    expect(page).to_have_url(re.compile(f"point={last}#h-config"))
    expect(page.get_by_role("heading", name=f"Configuration of trial {last}")).to_be_visible()
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("[data-copied=yes]")).to_have_count(1)
    copied = yaml.safe_load(page.evaluate("navigator.clipboard.readText()"))
    assert copied == yaml.safe_load(study.best_yaml(last))


def test_the_check_of_a_specification_names_the_goal_and_the_constraints(page):
    from playwright.sync_api import expect

    page.goto("/submit")
    page.get_by_label("The specification, as YAML").fill(SPEC)
    expect(page.locator("#plan")).to_contain_text("maximize val_accuracy and minimize parameters")
    expect(page.locator("#plan")).to_contain_text("memory at most 1000000000")


def test_trials_are_sorted_by_a_metric_that_is_clicked(page, client, complete):
    from playwright.sync_api import expect

    page.goto(f"/studies/{complete}/trials")
    page.get_by_role("link", name="parameters").click()
    expect(page.locator("th[aria-sort]")).to_contain_text("parameters")
    sizes = [trial.metrics["parameters"] for trial in client.study(complete).trial_list() if trial.metrics]
    shown = page.locator("tbody tr td:nth-child(3)").all_text_contents()
    assert [float(text.replace(",", "")) for text in shown if text] == pytest.approx(
        sorted(sizes, reverse=True), rel=1e-3
    )


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 360), ("light", 320)])
def test_the_front_fits_a_phone(open_page, complete, wide, scheme, width):
    page = open_page(viewport={"width": width, "height": 740}, color_scheme=scheme)
    for study in (complete, wide):
        for path in (f"/studies/{study}", f"/studies/{study}/trials"):
            page.goto(path)
            for table in page.locator(".scroll").all():  # what stands beyond the edge is what makes a page too wide
                hidden = table.evaluate("box => box.scrollWidth - box.clientWidth")
                assert study == complete or hidden > 100, path
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
