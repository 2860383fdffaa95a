"""What is believed about good values of the knobs before any trial: the prior of a search. Pure.

It comes from the catalogue, from the best trials of the studies that a search starts from, which know more, and from
the section `prior` of a specification, which has the last word. PriorBand (Mallik et al. 2023) and piBO (Hvarfner et
al. 2022) are searches that use one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter

from dialin.planning.prior_cases import factor, holds_first, reduced, scaled_by_constant
from dialin.planning.prior_examples import cases_of_examples, spread_of_examples
from dialin.specification import active_params, searched
from dialin.specification.catalogue import CATALOGUE
from dialin.specification.catalogue.knob import Scaling as Scaling
from dialin.specification.configuration import needed
from dialin.specification.domains import (
    ALWAYS,
    Belief,
    Choice,
    Condition,
    Domain,
    Fixed,
    FloatRange,
    IntRange,
    RangeTested,
    Scalar,
    holds,
    is_number,
    middle,
    nearest,
)
from dialin.specification.range_tests import Calibration
from dialin.specification.study_spec import PythonSpec, StudySpec

Searched = Choice | FloatRange | IntRange

MOST_DEFAULTS = 12
"""At most so many configurations are made of defaults."""
DEFAULTS_SHARE = 0.25
"""At most this fraction of a study's trials are defaults; one is, whatever their number."""
MIDDLE = 0.5
"""The position of the rate that a range test found, between the bounds of its combination."""


@dataclass(frozen=True)
class KnobPrior:
    """The belief about one searched knob."""

    cases: tuple[tuple[Condition, Scalar], ...]
    """The centre: the value beside the first condition that holds in a configuration; none holds: no belief there. The
    conditions name searched knobs only. A value is one of the knob's domain, but for a knob that follows another one:
    there it is what it would be at the reference, and the centre is the nearest value of the domain (`centre`). Of a
    learning rate with a range test it is a position from 0 to 1 between the bounds."""
    source: str
    """Where the belief comes from, for people: an article, the space, a range test, a study."""
    spread: float | None = None
    """One standard deviation about the centre: a factor above 1 on a log scale, a difference on a linear one. None: a
    quarter of the knob's range."""
    scaling: Scaling | None = None
    """How the centre follows another searched knob; None: it does not."""


@dataclass(frozen=True)
class Prior:
    """The beliefs about the knobs of one space, independent of each other but for their conditions."""

    knobs: Mapping[str, KnobPrior] = field(default_factory=dict)
    """By the name of a searched knob, in the order of `order_of`; a knob that is not here has no prior. Empty: the
    search has none."""


def prior_of(
    spec: StudySpec, calibration: Calibration | None = None, examples: Sequence[Mapping[str, Scalar]] = ()
) -> Prior:
    """The prior of a search over this space.

    `calibration`: what the range tests found, if there are any. `examples`: the best configurations of the studies that
    the search starts from, the best first. An example beats the catalogue, and the space beats both; a learning rate
    with a range test keeps the rate that was found on this study's own data. With `prior: off` there is none, and
    examples give none either. A person's own function has none but what the space or the examples say.
    """
    if spec.prior.off:
        return Prior()
    dependencies = {name: needed(domain) for name, domain in spec.space.items()}
    names, found = searched(spec), dict[str, KnobPrior]()
    # What the space says was checked for circles with its conditions; what the catalogue says gives way to both.
    for name in sorted(names, key=lambda name: name not in spec.prior.knobs):
        belief = _belief(name, spec, calibration, examples)
        belief = None if belief is None else _without_circles(name, belief, dependencies)
        if belief is not None:
            found[name] = belief
            dependencies[name] = dependencies[name] | depends_on(belief)
    prior = Prior(found)
    return Prior({name: found[name] for name in order_of(spec, prior) if name in found})


def centre(spec: StudySpec, prior: Prior, name: str, params: Mapping[str, Scalar]) -> Scalar:
    """The centre of a knob's prior beside `params`, which are all active knobs before it; None where it has none.

    It is a value of the knob's domain; a position from 0 to 1 of a learning rate with a range test.
    """
    belief = prior.knobs.get(name)
    value = None if belief is None else holds_first(belief.cases, params)
    if belief is None or value is None or belief.scaling is None or not is_number(value):
        return value
    domain = spec.space[name]
    assert isinstance(domain, Searched)  # only such a knob follows another one
    return nearest(domain, value * factor(belief.scaling, params), _is_logarithmic(name))


def order_of(spec: StudySpec, prior: Prior) -> list[str]:
    """The searched knobs, each after those that its condition and the centre of its prior name."""
    return [name for name in _order(spec, prior) if not isinstance(spec.space[name], Fixed)]


def default_configuration(spec: StudySpec, prior: Prior, calibration: Calibration | None = None) -> dict[str, Scalar]:
    """The configuration to try first: of each searched knob whose condition holds the centre of its prior; without one
    the middle of its range or the first value of its choice.

    A learning rate with a range test needs the `calibration`; without one it is left out.
    """
    return _configuration(spec, prior, _order(spec, prior), calibration, {})


def root_choices(spec: StudySpec, prior: Prior) -> list[str]:
    """The searched choices without a condition on which other searched knobs depend: by their condition, or by the
    centre of their prior."""
    depended: set[str] = set()
    for name, domain in spec.space.items():
        depended |= needed(domain)
        if name in prior.knobs:
            depended |= {other for when, _ in prior.knobs[name].cases for other in when}
    return [name for name in searched(spec) if name in depended and _is_root(spec.space[name])]


def defaults_by_root(spec: StudySpec, prior: Prior, calibration: Calibration | None = None) -> list[dict[str, Scalar]]:
    """The default configuration, then one for each other value of each root choice, in which the knobs that depend on
    it have their centres beside that value. None twice, `MOST_DEFAULTS` at most."""
    return [params for _, params in _defaults_with_given(spec, prior, calibration)]


@dataclass(frozen=True)
class FirstTrial:
    """One of the first trials of a search, which tries a default."""

    trial: int
    """The number of the trial."""
    params: Mapping[str, Scalar]
    """Its searched knobs."""
    given: Mapping[str, Scalar]
    """The value of a root choice for which it is tried; empty for the default configuration."""


def first_trials(spec: StudySpec, prior: Prior, calibration: Calibration | None = None) -> list[FirstTrial]:
    """The first trials that are defaults: every second one, after those of `search.enqueue`, up to `DEFAULTS_SHARE` of
    the budget.

    Between them are trials from the whole space, with which a misleading prior is told from a good one
    (`search.samplers.initial_design`). With `search.warm_start` only the default itself is tried: earlier trials tell
    of the rest.
    """
    defaults = _defaults_with_given(spec, prior, calibration)
    defaults = defaults[: max(1, int(DEFAULTS_SHARE * spec.budget.trials))]
    if spec.search.warm_start:
        defaults = defaults[:1]
    first = len(spec.search.enqueue)
    found = [FirstTrial(first + 2 * index, params, given) for index, (given, params) in enumerate(defaults)]
    return [one for one in found if one.trial < spec.budget.trials]


def _defaults_with_given(
    spec: StudySpec, prior: Prior, calibration: Calibration | None
) -> list[tuple[dict[str, Scalar], dict[str, Scalar]]]:
    """The defaults as `defaults_by_root` has them, each after the value that is given for it."""
    order = _order(spec, prior)
    roots = root_choices(spec, prior)
    found: list[tuple[dict[str, Scalar], dict[str, Scalar]]] = []
    for given in [{}, *({name: value} for name in roots for value in _values(spec.space[name]))]:
        configuration = _configuration(spec, prior, order, calibration, given)
        if all(configuration != other for _, other in found):
            found.append((given, configuration))
        if len(found) == MOST_DEFAULTS:
            break
    return found


def depends_on(belief: KnobPrior) -> set[str]:
    """The knobs that must be decided before the centre of a prior is known."""
    names = {name for when, _ in belief.cases for name in when}
    if belief.scaling is not None:
        names |= {belief.scaling.knob, *(name for when, _ in belief.scaling.exponents for name in when)}
    return names


def _order(spec: StudySpec, prior: Prior) -> list[str]:
    """All knobs of the space in the order of `order_of`."""
    before = {name: needed(domain) & spec.space.keys() for name, domain in spec.space.items()}
    for name, belief in prior.knobs.items():
        before[name] = before[name] | depends_on(belief)
    # Sorted, because the order of a set differs from process to process, and a resumed study goes on as it would have.
    return list(TopologicalSorter({name: sorted(others) for name, others in before.items()}).static_order())


def _configuration(
    spec: StudySpec, prior: Prior, order: Sequence[str], calibration: Calibration | None, given: Mapping[str, Scalar]
) -> dict[str, Scalar]:
    params: dict[str, Scalar] = {}
    for name in order:
        domain = spec.space[name]
        if holds(domain.when, params):
            value = domain.value if isinstance(domain, Fixed) else given.get(name, centre(spec, prior, name, params))
            params[name] = middle(domain) if value is None and isinstance(domain, Searched) else value
    return {name: value for name in searched(spec) if (value := _rated(name, params, spec, calibration)) is not None}


def _rated(name: str, params: Mapping[str, Scalar], spec: StudySpec, calibration: Calibration | None) -> Scalar:
    """The value of a knob; of a learning rate with a range test the rate at its position. None: it has none."""
    if name not in params or not isinstance(spec.space[name], RangeTested):
        return params.get(name)
    if calibration is None:
        return None
    position, others = params[name], {other: value for other, value in params.items() if other != name}
    return calibration.bounds_for(active_params(spec, others)).rate_at(position if is_number(position) else MIDDLE)


def _values(domain: Domain) -> Sequence[Scalar]:
    return domain.values if isinstance(domain, Choice) else ()


def _is_root(domain: Domain) -> bool:
    return isinstance(domain, Choice) and not domain.when


def _belief(
    name: str, spec: StudySpec, calibration: Calibration | None, examples: Sequence[Mapping[str, Scalar]]
) -> KnobPrior | None:
    """The belief about one searched knob: the space's, else the examples', else the catalogue's."""
    domain, stated = spec.space[name], spec.prior.knobs.get(name)
    if isinstance(domain, Fixed) or (stated is not None and not stated.cases):
        return None
    if isinstance(domain, RangeTested):
        return KnobPrior(((ALWAYS, MIDDLE),), _source_of_test(calibration))
    known = None if isinstance(spec.objective, PythonSpec) else _of_catalogue(name, spec, domain)
    taught = _of_examples(name, domain, known, examples)
    return taught if stated is None else _of_space(stated, spec, domain, taught)


def _source_of_test(calibration: Calibration | None) -> str:
    bounds = () if calibration is None else calibration.bounds
    unclear = sum(one.reading is None or not one.reading.confident for one in bounds)
    return f"the range test, unclear in {unclear} of {len(bounds)}" if unclear else "the range test"


def _of_catalogue(name: str, spec: StudySpec, domain: Searched) -> KnobPrior | None:
    """What the catalogue says; None where it says nothing, or no value that this space has."""
    knob = CATALOGUE[name]
    if knob.start is None:
        return None
    cases, scaling = knob.start_cases(), knob.start.scaling
    if scaling is not None and _is_searched(scaling.knob, spec):
        exponents = reduced(scaling.exponents, spec, domain.when)
        return KnobPrior(
            reduced(cases, spec, domain.when), knob.start.source, None, replace(scaling, exponents=exponents)
        )
    if scaling is not None:
        cases = scaled_by_constant(cases, scaling, spec)
    inside = tuple((when, _inside(name, domain, value)) for when, value in cases)
    cases = reduced(inside, spec, domain.when)
    return None if any(value is None for _, value in cases) else KnobPrior(cases, knob.start.source)


def _inside(name: str, domain: Searched, value: Scalar) -> Scalar:
    """The value of a domain that is nearest to the catalogue's, else the first of the next best ones; None: none."""
    start = CATALOGUE[name].start
    wanted = (value, *(() if start is None else start.then))
    found = (nearest(domain, one, _is_logarithmic(name)) for one in wanted)
    return next((one for one in found if one is not None), None)


def _is_logarithmic(name: str) -> bool:
    """Whether a knob acts by its order of magnitude."""
    knob = CATALOGUE.get(name)
    return knob is not None and knob.typical is not None and knob.typical.log


def _of_examples(
    name: str, domain: Searched, known: KnobPrior | None, examples: Sequence[Mapping[str, Scalar]]
) -> KnobPrior | None:
    """What the best configurations of earlier studies say, in place of the catalogue where they have the knob."""
    cases, scaling = ((), None) if known is None else (known.cases, known.scaling)
    taught = cases_of_examples(name, domain, cases, scaling, examples)
    if not taught:
        return known
    if scaling is None:
        taught = tuple((when, nearest(domain, value)) for when, value in taught)
    spread = None if isinstance(domain, Choice) else spread_of_examples(name, domain, taught, scaling, examples)
    return KnobPrior(taught, "the best trials of the studies of the warm start", spread, scaling)


def _of_space(stated: Belief, spec: StudySpec, domain: Searched, known: KnobPrior | None) -> KnobPrior | None:
    """What the space says; where none of its conditions holds, what is known otherwise."""
    cases = reduced(stated.cases, spec, domain.when)
    if not cases:
        return known
    if not cases[-1][0] or known is None:
        return KnobPrior(cases, "this space", stated.spread)
    scaling = known.scaling
    if scaling is not None:
        as_stated = tuple((when, 0.0) for when, _ in cases)  # a value that a person states follows nothing
        scaling = replace(scaling, exponents=(*as_stated, *scaling.exponents))
    spread = known.spread if stated.spread is None else stated.spread
    return KnobPrior((*cases, *known.cases), f"this space; elsewhere {known.source}", spread, scaling)


def _is_searched(name: str, spec: StudySpec) -> bool:
    return name in spec.space and not isinstance(spec.space[name], Fixed)


def _without_circles(name: str, belief: KnobPrior, before: Mapping[str, set[str]]) -> KnobPrior | None:
    """The belief without what depends on a knob that depends on this one; None: nothing is left of it."""
    circular = {other for other in depends_on(belief) if name in _all_before(other, before)}
    if not circular:
        return belief
    cases = tuple((when, value) for when, value in belief.cases if not circular & when.keys())
    scaling = belief.scaling
    if scaling is not None and circular & depends_on(replace(belief, cases=())):
        scaling = None
    return KnobPrior(cases, belief.source, belief.spread, scaling) if cases else None


def _all_before(name: str, before: Mapping[str, set[str]]) -> set[str]:
    """A knob, and all that must be decided before it."""
    found, pending = {name}, [name]
    for current in pending:  # grows inside the loop
        pending += [other for other in before.get(current, set()) if other not in found]
        found |= before.get(current, set())
    return found
