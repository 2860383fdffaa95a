"""A trial as Ray Tune runs it: an actor that trains an epoch or a few a step, and goes on to the next trial when one
ends."""

from __future__ import annotations

from typing import Any

from ray.tune import Trainable

from service.objectives.trials import TrialPlan, TrialRun

REPORTS = "reports"  # as a list, because Tune flattens mappings into keys of its own


class StudyTrainable(Trainable):
    """`plan` is shared by all trials of a study and sent once; the config is `{"trial": Trial}`."""

    _current: TrialRun | None = None

    def setup(self, config: dict[str, Any], *, plan: TrialPlan) -> None:
        self._plan = plan
        self._current = TrialRun(plan, config["trial"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._current = TrialRun(self._plan, new_config["trial"])
        return True

    def step(self) -> dict[str, Any]:
        if self._current is None:
            raise RuntimeError("step before setup")
        return {REPORTS: self._current.step()}

    def cleanup(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None
