"""The actor in which Ray Tune trains trials: it trains some epochs in a step, and takes the next trial when one
ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ray.tune import Trainable

from dialin.execution.trial_run import TrialPlan, TrialRun
from dialin.search.records import Report, Trial
from dialin.specification.findings import Finding

# Trials and reports are passed between processes as JSON text, because Tune copies, flattens and logs other values.
NUMBER, TRIAL, REPORTS = "number", "trial", "reports"
"""Keys of Tune's dictionaries: the trial's number and the trial in a config, the reports in a result."""


def config_of(trial: Trial) -> dict[str, Any]:
    """Return a trial as Tune's config."""
    return {NUMBER: trial.number, TRIAL: json.dumps(asdict(trial))}


def trial_of(config: dict[str, Any]) -> Trial:
    """Return the trial of a config."""
    return Trial(**json.loads(config[TRIAL]))


def result_of(reports: Sequence[Report]) -> dict[str, Any]:
    """Return the epochs of one step as Tune's result."""
    data = [{**asdict(report), "findings": [one.to_data() for one in report.findings]} for report in reports]
    return {REPORTS: json.dumps(data)}


def reports_of(result: dict[str, Any]) -> list[Report]:
    """Return the epochs of a result."""
    found = json.loads(result[REPORTS])
    return [Report(**{**one, "findings": tuple(Finding(**finding) for finding in one["findings"])}) for one in found]


class StudyTrainable(Trainable):
    """A `TrialRun` as Tune's Trainable. The plan, which all trials of a study share, is sent once; the config is a
    trial."""

    _current: TrialRun | None = None

    def setup(self, config: dict[str, Any], *, plan: TrialPlan) -> None:
        """Take the first trial of this actor."""
        self._plan = plan
        self._current = TrialRun(plan, trial_of(config))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial. True tells Tune that the actor can be used again."""
        self.cleanup()
        self._current = TrialRun(self._plan, trial_of(new_config))
        return True

    def step(self) -> dict[str, Any]:
        """Train some epochs. Raises what the training raised."""
        if self._current is None:
            raise RuntimeError("step before setup")
        return result_of(self._current.step())

    def cleanup(self) -> None:
        """End the current trial."""
        if self._current is not None:
            self._current.close()
            self._current = None
