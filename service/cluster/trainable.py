"""A trial as Ray Tune runs it: an actor that trains one epoch a step and goes on to the next trial when one ends."""

from __future__ import annotations

from typing import Any

from ray.tune import Trainable

from service.objectives.trials import TrialPlan, TrialRun
from service.search.records import Trial

EPOCH, METRICS, CHECKPOINT = "epoch", "metrics", "saved"


class StudyTrainable(Trainable):
    """Config: `plan` (TrialPlan), shared by all trials, and `trial` (Trial)."""

    _current: TrialRun | None = None

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self._current is None:
            raise RuntimeError("step before setup")
        epoch, metrics, checkpoint = self._current.step()
        return {EPOCH: epoch, METRICS: metrics, CHECKPOINT: checkpoint}

    def cleanup(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None

    def _begin(self, config: dict[str, Any]) -> None:
        plan: TrialPlan = config["plan"]
        trial: Trial = config["trial"]
        self._current = TrialRun(plan, trial)
