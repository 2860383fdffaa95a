"""MLflow behind the server, as a person has it: one sign-in, one click, and its own pages work."""

from __future__ import annotations

import re

import pytest

from dialin.client.client import Client
from dialin.settings import Settings
from dialin.store.tokens import Tokens
from tests.browser.test_page import QUICK
from tests.embedded_mlflow import running_mlflow
from tests.served import serving
from tests.server.harness import wait_until


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A server with MLflow behind it, on which everybody needs a token, and a study that has ended."""
    out = tmp_path_factory.mktemp("mlflow")
    with running_mlflow(out) as mlflow, serving(out, mlflow=mlflow) as url:
        with Tokens(Settings(out, out).database) as tokens:
            made = {role: tokens.create(role, role) for role in ("viewer", "submitter")}
        (out / "quick.yaml").write_text(QUICK)
        with Client(url, made["submitter"]) as client:
            study = client.submit(out / "quick.yaml")
            study.wait(progress=False, timeout=120)
            wait_until(lambda: study.refresh().info.mirror_lag == 0, 60, "MLflow has everything")
            yield url, made, study


@pytest.fixture
def open_tab(chromium, place):
    """Makes a tab; its test fails when a policy of ours forbids what MLflow's pages do."""
    contexts, forbidden = [], []

    def make():
        context = chromium.new_context(base_url=place[0], viewport={"width": 1400, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: forbidden.append(said.text) if "Content Security Policy" in said.text else None)
        page.on("pageerror", lambda error: forbidden.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert forbidden == []


def sign_in(page, token):
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def test_signed_in_here_is_signed_in_there_one_click_away(open_tab, place):
    from playwright.sync_api import expect

    _, tokens, study = place
    page = open_tab()
    page.goto(f"/studies/{study.id}")
    sign_in(page, tokens["viewer"])
    page.get_by_role("link", name="in MLflow").click()
    expect(page).to_have_url(re.compile(r"/mlflow/#/experiments/\d+/runs/\w+\?workflowType=machine_learning"))
    expect(page.get_by_role("heading", name=study.id)).to_be_visible(timeout=30_000)
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("best_config.yaml").first.click()
    expect(page.get_by_text(f"Best of study {study.id}")).to_be_visible(timeout=30_000)

    page.goto(f"/studies/{study.id}")
    page.locator("#part-leaders tbody th a").first.click()
    expect(page.get_by_role("heading", name=re.compile("trial-000"))).to_be_visible(timeout=30_000)
    page.get_by_role("tab", name="Model metrics").click()
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=30_000)

    page.goto("/")
    page.get_by_role("link", name="MLflow", exact=True).click()
    expect(page.get_by_role("link", name="quick")).to_be_visible(timeout=30_000)

    page.goto("/")
    page.get_by_role("button", name="Sign out").click()
    page.goto("/mlflow/")
    expect(page).to_have_url(re.compile("/sign-in"))


def test_a_link_into_mlflow_leads_there_by_way_of_signing_in(open_tab, place):
    from playwright.sync_api import expect

    _, tokens, study = place
    page = open_tab()
    page.goto(study.link("mlflow"))
    expect(page).to_have_url(re.compile("/sign-in"))
    sign_in(page, tokens["viewer"])
    expect(page).to_have_url(study.link("mlflow"))
    expect(page.get_by_role("heading", name=study.id)).to_be_visible(timeout=30_000)
