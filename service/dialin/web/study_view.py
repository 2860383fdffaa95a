"""The template contexts of a study's pages, computed from the models of the API."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

from markupsafe import Markup

from dialin.charts import charts
from dialin.charts.pareto import axes_of, marks_of, pareto_charts
from dialin.charts.words import why_ended
from dialin.errors import UnreadableError
from dialin.lifecycle import TrialState, allowed_actions
from dialin.planning.plan import rungs_for
from dialin.results.summary import is_lucky
from dialin.schemas import BestCurve, StudyInFull
from dialin.search.ranking import rank_key
from dialin.specification import damage_of, stored_spec
from dialin.specification.domains import Fixed, FloatRange, IntRange, RangeTested
from dialin.specification.study_spec import StudySpec
from dialin.texts import metric_text
from dialin.web.backend import Backend, Caller, Data
from dialin.web.front_view import front_context, front_of

T = TypeVar("T")

LEADERS = 10  # trials on the leaderboard
FRONT_LEADERS = 30  # trials on it, where so many are on the Pareto front
FAILED_SHOWN = 10  # failed trials that are shown with their reasons
TRIALS = 100  # trials on a page of the list of all trials
LOG_LINES = 200  # last lines of the log that are shown


@dataclass(frozen=True)
class Chosen:
    """What a person has chosen to see of a study."""

    knob: str | None = None
    """The knob whose values are drawn; for None or an unknown name, the page chooses one."""
    zoom: bool = False
    """Whether the value axis covers only the best quarter of the values."""
    point: int | None = None
    """The trial of the Pareto front whose configuration is shown; None or any other number: the first."""


def study_context(backend: Backend, caller: Caller, study_id: str, asked: Chosen) -> dict[str, Any]:
    """Return the context of the templates of a study. Raises NotFoundError."""
    study = backend.study(study_id)
    none: Sequence[Data] = ()
    trials = _if_readable(lambda: backend.trials(study_id), none)
    spec = _read(study.spec)
    knobs = _knobs(spec)
    chosen = next((known for known in knobs if known.name == asked.knob), _first_choice(knobs))
    leaders = _leaders(backend, study, trials)
    best = next((trial for trial in leaders if trial["trial"] == study.best_trial), None)
    number = None if best is None else best["trial"]
    point = asked.point if asked.point in front_of(study) else None
    return {
        "study": study,
        "best": best,
        "best_epoch": None if best is None else best["best_epoch"],
        "expected": _expected(study, best),
        "leaders": leaders,
        "columns": [known.name for known in knobs],
        "knobs": knobs,
        "chosen": chosen,
        "zoom": asked.zoom,
        "point": point,
        "front": front_context(study),
        "charts": {
            **_charts(backend, study, trials, spec, chosen, number, asked.zoom),
            "pareto": _pareto_charts(backend, study, trials, spec),
        },
        "failed": backend.derived(trials, "failed", lambda: [dict(each) for each in _failed(trials)]),
        "reasons": backend.derived(trials, "reasons", lambda: why_ended(trials)),
        "yaml": _if_readable(lambda: backend.best_config(study_id, point), None),
        "log": backend.log(study_id, LOG_LINES).splitlines(),
        "actions": actions_of(study, caller),
        **_facts(spec),
    }


def _facts(spec: StudySpec | None) -> dict[str, Any]:
    """What the page says of the specification itself."""
    if spec is None:
        return {"budget_epochs": None, "subject": ""}
    return {"budget_epochs": spec.budget.epochs, "subject": spec.objective.subject}


def actions_of(study: StudyInFull, caller: Caller) -> list[str]:
    """Return the actions that the caller may take on the study now."""
    owned = study.owner == caller.name
    return [each.value for each in allowed_actions(study.state, caller.role, owned=owned, archived=study.archived)]


def _read(text: str) -> StudySpec | None:
    """The specification; None if this version cannot read it, so that the rest of the study is shown nevertheless."""
    return None if damage_of(text) else stored_spec(text)


def _if_readable(ask: Callable[[], T], otherwise: T) -> T:
    """The result of `ask`, or `otherwise` if it raises UnreadableError; the page shows the study's `unreadable`."""
    try:
        return ask()
    except UnreadableError:
        return otherwise


@lru_cache(maxsize=64)
def _rungs(text: str) -> tuple[int, ...]:
    """The rungs of a specification. They are cached, since a study with long trials has many."""
    spec = _read(text)
    return rungs_for(spec) if spec is not None else ()


def _knobs(spec: StudySpec | None) -> list[charts.Knob]:
    if spec is None:
        return []
    return [charts.Knob(name, domain) for name, domain in spec.space.items() if not isinstance(domain, Fixed)]


def _first_choice(knobs: Sequence[charts.Knob]) -> charts.Knob | None:
    """The learning rate if it is searched, since it usually matters most; otherwise the first knob with a range."""
    ranked = sorted(knobs, key=lambda knob: (knob.name != "lr", not isinstance(knob.domain, _RANGES)))
    return ranked[0] if ranked else None


_RANGES = FloatRange | IntRange | RangeTested


def _leaders(backend: Backend, study: StudyInFull, trials: Sequence[Data]) -> list[Data]:
    """The trials with the best values, the best first; and the best trial, where its estimate and not its value makes
    it the best."""

    front = {number: place for place, number in enumerate(front_of(study))}

    def key(index: int) -> tuple[int, bool, tuple[int, float, float, int, int]]:
        trial = trials[index]
        reached = trial["best_epoch"], trial["trial"]
        rank = rank_key(trial["state"], trial["value"], trial["loss"], *reached, study.mode == "max")
        violates = study.constraints is not None and bool(trial["violated"])
        return front.get(trial["trial"], len(front)), violates, rank

    def find() -> list[int]:
        most = max(LEADERS, min(len(front), FRONT_LEADERS))
        return heapq.nsmallest(most, (i for i, trial in enumerate(trials) if trial["value"] is not None), key=key)

    indices = backend.derived(trials, ("leaders", study.mode, tuple(front)), find)
    if study.best_trial is not None and study.best_trial < len(trials) and study.best_trial not in indices:
        indices = [*indices[:-1], study.best_trial]
    return [trials[index] for index in indices]


def _expected(study: StudyInFull, best: Data | None) -> str:
    """The expected value of the best trial as text; empty where it is the observed one."""
    return metric_text(study.expected) if best is not None and is_lucky(best["value"], study.expected) else ""


def _failed(trials: Sequence[Data]) -> Sequence[Data]:
    """The first failed trials only, since later ones usually fail for the same reason."""
    return list(itertools.islice((trial for trial in trials if trial["state"] == TrialState.FAILED), FAILED_SHOWN))


def _charts(
    backend: Backend,
    study: StudyInFull,
    trials: Sequence[Data],
    spec: StudySpec | None,
    knob: charts.Knob | None,
    best: int | None,
    zoom: bool,
) -> dict[str, Markup]:
    """The charts by name. Drawing one takes longer than the rest of the page, so each is cached until trials change."""
    study_id, metric, mode = study.id, study.metric, study.mode
    rungs = _rungs(study.spec)
    epochs = spec.budget.epochs if spec is not None else 1
    no_curve = BestCurve(metric=metric, mode=mode, points=[])

    shown: dict[str, Any] = {"best": best, "mode": mode, "zoom": zoom}
    key = (study.spec, best, zoom)

    def curves() -> Markup:
        return charts.learning_curves(trials, metric, rungs=rungs, epochs=epochs, **shown)

    is_measured = study.constraints is not None and any(trial["value"] is not None for trial in trials)
    empty = "no trial meets the constraints yet" if is_measured else charts.EMPTY
    drawn = {
        "best": charts.best_curve(_if_readable(lambda: backend.curve(study_id), no_curve).model_dump(), zoom, empty),
        "curves": backend.derived(trials, ("curves", *key), curves),
    }
    if knob is not None:
        draw = partial(charts.knob_values, trials, knob, metric, **shown)
        drawn["knob"] = backend.derived(trials, ("knob", knob.name, *key), draw)
    return drawn


def _pareto_charts(
    backend: Backend, study: StudyInFull, trials: Sequence[Data], spec: StudySpec | None
) -> list[Markup]:
    """The plots of the Pareto front; none with one metric."""
    if spec is None or study.metrics is None:
        return []
    front = frozenset(front_of(study))
    key = ("pareto", study.spec, front)
    return backend.derived(trials, key, lambda: pareto_charts(marks_of(trials, front), axes_of(spec)))


def trials_context(
    backend: Backend, study_id: str, sort: str, states: Sequence[str], cursor: str | None
) -> dict[str, Any]:
    """Return the context of the list of a study's trials. Raises NotFoundError, and UsageError for an unknown order."""
    study = backend.study(study_id)
    page = backend.trial_page(study_id, sort, states, cursor, TRIALS)
    return {
        "study": study,
        "trials": page.trials,
        "next": page.next,
        "sort": sort,
        "chosen": states,
        "filter": next(iter(states), None),
        "cursor": cursor,
        "columns": [known.name for known in _knobs(_read(study.spec))],
        "front": front_context(study),
        "states": [state.value for state in TrialState],
    }
