"""A trial as Ray Tune runs it: an actor that trains an epoch or a few a step, and goes on to the next trial when one
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

# What crosses over goes as text: Tune copies, flattens, keeps and writes down whatever else it is given.
NUMBER, TRIAL, REPORTS = "number", "trial", "reports"


def config_of(trial: Trial) -> dict[str, Any]:
    """What Tune gets of a trial."""
    return {NUMBER: trial.number, TRIAL: json.dumps(asdict(trial))}


def trial_of(config: dict[str, Any]) -> Trial:
    return Trial(**json.loads(config[TRIAL]))


def result_of(reports: Sequence[Report]) -> dict[str, Any]:
    """What Tune gets of the epochs of a trial."""
    data = [{**asdict(report), "findings": [one.to_data() for one in report.findings]} for report in reports]
    return {REPORTS: json.dumps(data)}


def reports_of(result: dict[str, Any]) -> list[Report]:
    found = json.loads(result[REPORTS])
    return [Report(**{**one, "findings": tuple(Finding(**finding) for finding in one["findings"])}) for one in found]


class StudyTrainable(Trainable):
    """`plan` is shared by all trials of a study and sent once; the config is `config_of(trial)`."""

    _current: TrialRun | None = None

    def setup(self, config: dict[str, Any], *, plan: TrialPlan) -> None:
        self._plan = plan
        self._current = TrialRun(plan, trial_of(config))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._current = TrialRun(self._plan, trial_of(new_config))
        return True

    def step(self) -> dict[str, Any]:
        if self._current is None:
            raise RuntimeError("step before setup")
        return result_of(self._current.step())

    def cleanup(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None
