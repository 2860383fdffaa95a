"""Where the server sends people who want to see a run in MLflow."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from dialin.paths import OutputFolder
from dialin.server.app import create_app
from dialin.settings import ServerSettings
from dialin.tracking.cursor import Cursor, write_cursor
from tests.server.conftest import submit

RUN = "#/experiments/7/runs/r1?workflowType=machine_learning"


@pytest.mark.parametrize(
    ("uri", "secret", "link", "home"),
    [
        # MLflow of the server: a path of its own, so that it leads there wherever the reader is, and whatever its port.
        ("http://127.0.0.1:54979", "s", f"/mlflow/{RUN}", "/mlflow/#/experiments?workflowType=machine_learning"),
        ("https://mlflow.example.org/", None, f"https://mlflow.example.org/{RUN}", "https://mlflow.example.org/#/exp"),
        (None, None, None, None),
        ("sqlite:////tmp/x.db", None, None, None),
    ],
)
def test_links_into_mlflow(settings, jobs, uri, secret, link, home):
    settings = replace(settings, mlflow_uri=uri, mlflow_secret=secret)
    client, other = (
        TestClient(create_app(settings, ServerSettings(poll_seconds=3600), jobs), base_url="http://127.0.0.1:8080")
        for _ in range(2)
    )
    study = submit(other).json()
    spool = OutputFolder(settings.out).study(study["id"]).events
    spool.mkdir(parents=True)
    write_cursor(spool, Cursor(experiment="7", parent="r1"))  # which the other server may not look at for a second
    assert client.get(study["links"]["self"]).json()["links"]["mlflow"] == link
    page = client.get(study["links"]["page"]).text
    shown = re.search(r'<a href="([^"]*)"[^>]*>in MLflow</a>', page)
    assert (shown[1] if shown else None) == link
    shown = re.search(r'<a href="([^"]*)"[^>]*>MLflow</a>', page)
    assert (shown[1] if shown else "").startswith(home or "")
    assert (shown is None) is (home is None)
    # Only an MLflow of the server's own is reached through it.
    assert client.get("/mlflow/", follow_redirects=False).status_code == (404 if secret is None else 502)
    client.close()
    other.close()
