"""The prior of a study and its first trials, as lines of `dialin plan`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from dialin.planning.plan import Plan
from dialin.planning.prior import KnobPrior, Prior, first_trials, prior_of
from dialin.specification import sampler_of, searched, uses_prior
from dialin.specification.catalogue import CATALOGUE
from dialin.specification.domains import RangeTested
from dialin.specification.study_spec import StudySpec
from dialin.specification.wording import centre_text, spread_text
from dialin.texts import scalar_text


def prior_lines(plan: Plan) -> list[tuple[str, str]]:
    """The lines about the prior, each with its title: where good values are believed to lie, and the first trials.

    Centres that are one value share a line; one that depends on other knobs, or is not the catalogue's, has its own.
    """
    spec = plan.spec
    if not uses_prior(spec):
        return [("prior", f"none: the sampler {sampler_of(spec)} uses none")]
    prior = prior_of(spec, plan.calibration)
    if not prior.knobs:
        return [("prior", "none, as the space says" if spec.prior.off else "none; the space can state one")]
    titled = [("" if index else "prior", line) for index, line in enumerate(_belief_lines(spec, prior))]
    return [*titled, ("first trials", _first_trials(spec, prior, plan))]


def _belief_lines(spec: StudySpec, prior: Prior) -> list[str]:
    plain: list[str] = []
    others: list[str] = []
    without: list[str] = []
    for name in searched(spec):
        belief = prior.knobs.get(name)
        if belief is None:
            without.append(name)
        else:
            (plain if _is_plain(name, belief) else others).append(_belief_text(name, belief, spec))
    lines = [", ".join(plain)] if plain else []
    lines += others
    if without:
        lines.append(f"none for {', '.join(without)}")
    if spec.search.warm_start:
        lines.append("the best trials of search.warm_start take the place of the catalogue's values")
    return lines


def _is_plain(name: str, belief: KnobPrior) -> bool:
    is_single = len(belief.cases) == 1 and not belief.cases[0][0] and belief.scaling is None
    return is_single and belief.spread is None and _is_catalogues(name, belief)


def _is_catalogues(name: str, belief: KnobPrior) -> bool:
    start = CATALOGUE[name].start if name in CATALOGUE else None
    return start is not None and start.source == belief.source


def _belief_text(name: str, belief: KnobPrior, spec: StudySpec) -> str:
    domain = spec.space[name]
    spread = f", spread {spread_text(belief.spread, domain)}" if belief.spread is not None else ""
    text = f"{name} {centre_text(domain, belief.cases, belief.scaling)}{spread}"
    # The catalogue's sources are told by `dialin knobs`; a range test is told by the text.
    is_told = _is_catalogues(name, belief) or isinstance(domain, RangeTested)
    return text if is_told else f"{text} ({belief.source.partition(';')[0]})"


def _first_trials(spec: StudySpec, prior: Prior, plan: Plan) -> str:
    """What the first trials are, without the values that the lines above have already."""
    enqueued = len(spec.search.enqueue)
    before = f"after the {enqueued} of search.enqueue, " if enqueued else ""
    found = first_trials(spec, prior, plan.calibration)
    if not found:
        return "those of search.enqueue, which take the whole budget"
    parts = [f"{before}trial {found[0].trial} takes these values"]
    for name, group in groupby(found[1:], lambda one: next(iter(one.given))):
        trials = list(group)
        several, numbers = len(trials) > 1, _listed([str(one.trial) for one in trials])
        values = _listed([scalar_text(one.given[name]) for one in trials])
        parts.append(f"trial{'s' if several else ''} {numbers} take{'' if several else 's'} them with {name} {values}")
    if found[1:]:
        parts.append("those between come from the whole space")
    return "; ".join(parts)


def _listed(texts: Sequence[str]) -> str:
    *most, last = texts
    return f"{', '.join(most)} and {last}" if most else last
