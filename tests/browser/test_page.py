"""The page as a person has it: submit, look on, stop, take the best away."""

from __future__ import annotations

import re

import pytest
import yaml

from dialin.lifecycle import StudyState
from dialin.settings import Settings
from dialin.store.submissions import Submissions
from dialin.store.tokens import Tokens
from tests.server.harness import wait_until

SLOW = """\
name: slow
objective: {dataset: synthetic, epoch_seconds: 0.3}
space:
  lr: {min: 1e-4, max: 1e-2, log: true}
  batch_size: {min: 16, max: 128, log: true}
search: {sampler: random}
budget: {trials: 40, epochs: 9}
"""
CHOICE = SLOW.replace("search: {sampler: random}\n", "").replace("space:\n", "space:\n  optimizer: [sgd, adam]\n")
QUICK = SLOW.replace("0.3", "0.0").replace("slow", "quick").replace("trials: 40", "trials: 8")


@pytest.fixture(scope="module")
def complete(site, tmp_path_factory):
    """A study that has ended."""
    from dialin.client.client import Client

    path = tmp_path_factory.mktemp("spec") / "quick.yaml"
    path.write_text(QUICK)
    with Client(site) as client:
        study = client.submit(path)
        study.wait(progress=False, timeout=120)
        assert study.info.state == "complete"
        return study.id


def test_submit_look_on_stop_and_copy_the_best(page):
    from playwright.sync_api import expect

    page.goto("/")
    page.get_by_role("link", name="Submit a study").click()
    area = page.get_by_label("The specification, as YAML")
    area.fill(SLOW.replace("batch_size", "bach_size").replace("trials: 40", "trials: 0"))
    problems = page.locator("#problems")
    expect(problems).to_contain_text("line 5")
    expect(problems).to_contain_text("did you mean 'batch_size'?")
    expect(problems).to_contain_text("line 7")
    expect(page.locator(".gutter .bad")).to_have_count(2)
    for index, number in enumerate((5, 7)):  # what is wrong stands at the end of its own line
        said = page.locator(".marks em").nth(index).bounding_box()
        line = page.locator(".gutter span").nth(number - 1).bounding_box()
        assert abs(said["y"] - line["y"]) < line["height"], (number, said, line)
    area.fill(CHOICE)
    expect(page.locator("#plan")).to_contain_text(
        "trial 0 takes these values; trial 2 takes them with optimizer adam; those between come from the whole space"
    )
    area.fill(SLOW)
    expect(problems).to_contain_text("The specification is valid.")
    expect(page.locator("#plan")).to_contain_text("40, 2 at a time")
    expect(page.locator("#plan")).to_contain_text("Prior")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile("/studies/slow-"))

    page.evaluate("window.theSamePage = true")
    head = page.locator("#part-head")
    expect(head).to_have_attribute("data-state", "running", timeout=60_000)
    expect(page.locator("#part-tiles")).to_contain_text("running", timeout=60_000)
    expect(page.locator("#part-curves polyline").first).to_be_attached(timeout=60_000)
    expect(page.locator("#part-best .best")).to_be_attached()
    assert page.evaluate("window.theSamePage") is True

    page.get_by_role("button", name="Stop").click()
    expect(head).to_have_attribute("data-state", "interrupted", timeout=60_000)
    assert page.evaluate("window.theSamePage") is True
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("[data-copied=yes]")).to_have_count(1)
    copied = yaml.safe_load(page.evaluate("navigator.clipboard.readText()"))
    assert copied["budget"]["trials"] == 1
    assert set(copied["space"]) >= {"lr", "batch_size"}


def test_a_shipped_space_is_a_start(page):
    from playwright.sync_api import expect

    page.goto("/submit")
    page.get_by_label("Start from").select_option("digits")
    expect(page.get_by_label("The specification, as YAML")).to_have_value(re.compile("name: digits"))
    expect(page.locator("#problems")).to_contain_text("The specification is valid.")


def test_the_list_changes_without_a_reload(page, client, tmp_path):
    from playwright.sync_api import expect

    page.goto("/")
    page.evaluate("window.theSamePage = true")
    path = tmp_path / "late.yaml"
    path.write_text(QUICK.replace("quick", "late"))
    study = client.submit(path)
    row = page.locator("main", has_text=study.id)
    expect(row).to_be_visible(timeout=60_000)
    study.wait(progress=False, timeout=120)
    expect(page.locator("main")).to_contain_text(re.compile(r"late.*complete", re.DOTALL), timeout=60_000)
    assert page.evaluate("window.theSamePage") is True


def test_a_study_says_everything_about_itself(page, complete):
    from playwright.sync_api import expect

    page.goto(f"/studies/{complete}")
    expect(page.locator("#part-curves .rung").first).to_be_attached()
    expect(page.locator("#part-curves .stopped").first).to_be_attached()
    expect(page.get_by_role("heading", name="Leaderboard")).to_be_visible()
    expect(page.locator("section", has=page.locator("#h-leaders")).locator("tbody tr")).to_have_count(8)
    expect(page.locator("section", has=page.locator("#h-reasons"))).to_contain_text("trained all 9 epochs")
    expect(page.locator("section", has=page.locator("#h-log"))).to_contain_text("8 of 8 trials started, 0 running")
    page.locator("#knob").select_option("batch_size")
    expect(page).to_have_url(re.compile("knob=batch_size"))
    expect(page.locator("#part-knob")).to_contain_text("batch_size")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_the_light_and_in_the_dark(open_page, complete, scheme):
    page = open_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    for path in ("/", "/submit", f"/studies/{complete}"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        light = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)")
        assert (sum(light) / 3 > 128) is (scheme == "light"), path


def test_nothing_that_is_shown_is_taken_for_markup(page, client, folder, tmp_path):
    from playwright.sync_api import expect

    path = tmp_path / "sly.yaml"
    path.write_text(SLOW.replace("slow", "sly"))
    study = client.submit(path)
    evil = "<img src=x onerror=\"document.title='evil'\"><script>document.title='evil'</script>"
    with Submissions(Settings(folder, folder).database) as submissions:
        wait_until(lambda: submissions.get(study.id).submission.began_at is not None, 60, "it runs")
        study.stop()
        wait_until(lambda: submissions.get(study.id).submission.job == "", 60, "it has ended")
        submission = submissions.get(study.id).submission
        submissions.settle(submission, StudyState.INTERRUPTED, evil)
    page.goto(f"/studies/{study.id}")
    expect(page.locator("p.reason.interrupted")).to_have_text(evil)
    assert "evil" not in page.title()


def test_who_has_a_token_signs_in_and_sees_what_their_role_allows(chromium, tmp_path):
    from playwright.sync_api import expect

    from tests.served import serving

    with serving(tmp_path) as url, Tokens(Settings(tmp_path, tmp_path).database) as tokens:
        tokens_of = {role: tokens.create(role, role) for role in ("viewer", "submitter")}
        for role, may in (("viewer", False), ("submitter", True)):
            context = chromium.new_context(base_url=url)
            page = context.new_page()
            page.goto("/")
            expect(page).to_have_url(re.compile("/sign-in"))
            page.get_by_label("Token").fill("dialin_wrong")
            page.get_by_role("button", name="Sign in").click()
            expect(page.locator("main")).to_contain_text("not known")
            page.get_by_label("Token").fill(tokens_of[role])
            page.get_by_role("button", name="Sign in").click()
            expect(page.get_by_role("heading", name="Studies")).to_be_visible()
            (cookie,) = [each for each in context.cookies() if each["name"] == "dialin_session"]
            assert cookie["httpOnly"]
            assert cookie["sameSite"] == "Strict"
            page.goto("/submit")
            button = page.get_by_role("button", name="Submit")
            (expect(button).to_be_enabled if may else expect(button).to_be_disabled)()
            page.get_by_role("button", name="Sign out").click()
            page.goto("/")
            expect(page).to_have_url(re.compile("/sign-in"))
            context.close()
