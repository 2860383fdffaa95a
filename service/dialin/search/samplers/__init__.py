"""The samplers: what suggests configurations. A new one is a file beside this one and a line in `SAMPLERS`.

The names are those of `search.sampler` in a specification (`specification.study_spec.SearchSpec`).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from dialin.planning.plan import Plan
from dialin.search.goals import Goals
from dialin.search.models.encoding import Encoding
from dialin.search.records import Observation
from dialin.search.samplers.base import Sampler as Sampler

# Name -> module:class. A module is imported when a study uses it: the model of learning curves needs scipy, TPE needs
# Optuna's samplers, and neither should delay a study that uses the other.
SAMPLERS = {
    "random": "dialin.search.samplers.random:RandomSampler",
    "grid": "dialin.search.samplers.grid:GridSampler",
    "tpe": "dialin.search.samplers.tpe:TPESampler",
    "gp": "dialin.search.samplers.learning_curve_gp:LearningCurveGPSampler",
}
SEVERAL = {
    "tpe": "dialin.search.samplers.front_tpe:FrontTPESampler",
    "gp": "dialin.search.samplers.multi_objective_gp:MultiObjectiveGPSampler",
}
"""Those that are others with several metrics, or with constraints."""


def make_sampler(name: str, plan: Plan, encoding: Encoding, others: Sequence[Observation]) -> Sampler:
    """The sampler of that name for one study.

    `others`: trials of finished studies, all of which are configurations of this space. Raises KeyError for a name that
    is not in `SAMPLERS`.
    """
    wanted = SAMPLERS[name] if Goals.of(plan.spec).is_single else SEVERAL.get(name, SAMPLERS[name])
    module, _, made = wanted.partition(":")
    sampler: Sampler = getattr(import_module(module), made)(plan, encoding, others)
    return sampler
