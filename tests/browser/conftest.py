"""A real browser before a real server, whose studies train in processes of this machine. Skipped, with the reason,
where the browser is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from dialin.client.client import Client
from tests.served import serving

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
# Without these it looks for its maker's hosts at every start.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="package")  # Playwright's event loop would be running in the tests that come after
def chromium() -> Iterator:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium on the path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def site(folder) -> Iterator[str]:
    with serving(folder) as url:
        yield url


@pytest.fixture
def client(site) -> Iterator[Client]:
    with Client(site) as client:
        yield client


@pytest.fixture
def open_page(chromium, site) -> Iterator:
    """Makes a tab; its test fails when anything is written to its console as an error, or a script raises."""
    contexts, errors = [], []

    def make(**options):
        context = chromium.new_context(base_url=site, permissions=["clipboard-read", "clipboard-write"], **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        return page

    make.errors = errors
    yield make
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def page(open_page):
    return open_page()
