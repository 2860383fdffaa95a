"""The log of the process that drives a study on a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from dialin.execution.ray_jobs import JOB, STUDY
from dialin.paths import OutputFolder

# No server has submitted the study, so the job ends at once. What is logged afterwards in the same process shows how
# the job has set logging up.
SCRIPT = """
import logging
from dialin.server.job import main

assert main() == 0
import optuna

optuna.create_study(storage="sqlite:///:memory:")
logging.getLogger("optuna.storages").warning("a warning of Optuna")
logging.getLogger("dialin.search").info("a record of dialin")
"""


@pytest.fixture
def driver_log(tmp_path):
    """Run a job with further environment variables; return its exit code and its log."""

    def run(**environment):
        here = {**os.environ, "DIALIN_OUT": str(tmp_path), STUDY: "digits-abcdef", JOB: "digits-abcdef-1"}
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, env={**here, **environment}, cwd=tmp_path, timeout=120, check=False)
        return done.returncode, (OutputFolder(tmp_path).study("digits-abcdef").logs / "driver.log").read_text()

    return run


def test_the_log_has_dialins_records_and_no_announcements_of_optuna(driver_log):
    code, log = driver_log()
    assert code == 0
    assert "job digits-abcdef-1 begins" in log
    assert "INFO dialin.search: a record of dialin" in log
    assert "a warning of Optuna" in log
    assert "A new study created" not in log


def test_the_settings_of_the_servers_log_apply(driver_log):
    _, log = driver_log(DIALIN_LOG_FORMAT="json")
    assert any(json.loads(line)["message"] == "a record of dialin" for line in log.splitlines() if line[:1] == "{")
    _, log = driver_log(DIALIN_LOG_LEVEL="warning", DIALIN_LOG_FORMAT="text")
    assert "INFO dialin.search: a record of dialin" not in log


def test_a_setting_that_is_not_allowed_ends_the_job_with_a_line_in_its_log(driver_log):
    code, log = driver_log(DIALIN_LOG_LEVEL="loud")
    assert code != 0
    assert "error: DIALIN_LOG_LEVEL='loud'; allowed: debug, info, warning, error" in log
