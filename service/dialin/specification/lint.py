"""Warnings of what is allowed but probably not meant; each says what to write instead."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dialin.specification.catalogue import CATALOGUE
from dialin.specification.configuration import PRIOR_SAMPLERS, sampler_of, searched, uses_prior
from dialin.specification.domains import Choice, Condition, Domain, Fixed, FloatRange, IntRange, Scalar
from dialin.specification.study_spec import ObjectiveSpec, StudySpec


@dataclass(frozen=True)
class LintWarning:
    """One doubt about a specification."""

    path: str
    """The keys from the top, joined by dots."""
    message: str
    """What looks unintended, and what to write instead."""


def lint(spec: StudySpec) -> list[LintWarning]:
    """Everything that looks unintended, section by section."""
    return [warning for check in _CHECKS for warning in check(spec)]


def _learning_rate(spec: StudySpec) -> Iterator[LintWarning]:
    domain = spec.space.get("lr")
    if not isinstance(domain, FloatRange):
        return
    if not domain.log and domain.low > 0 and domain.high / domain.low > 10:
        yield LintWarning("space.lr", "a learning rate acts by its order of magnitude; add log: true")
    # 1e-300 stands for a lower bound of 0, which spans every order of magnitude.
    if domain.high / max(domain.low, 1e-300) < 3:
        message = f"{domain.low:g} to {domain.high:g} is less than a factor of 3, which leaves little to find"
        yield LintWarning("space.lr", message)


def _conditions(spec: StudySpec) -> Iterator[LintWarning]:
    for name, domain in spec.space.items():
        yield from _never_exists(spec, name, domain)
        # A fixed knob without effect costs nothing; one that is searched wastes trials.
        if isinstance(spec.objective, ObjectiveSpec) and not isinstance(domain, Fixed):
            yield from _has_no_effect(spec, name, domain)


def _never_exists(spec: StudySpec, name: str, domain: Domain) -> Iterator[LintWarning]:
    """Of a knob whose condition wants values that the space never gives."""
    for other, wanted in domain.when.items():
        possible = _values_of(spec, other)
        if possible and not set(possible) & set(wanted):
            message = f"never exists in this space: {other} would have to be {_or(wanted)}"
            yield LintWarning(f"space.{name}", message)


def _has_no_effect(spec: StudySpec, name: str, domain: Domain) -> Iterator[LintWarning]:
    """Of a searched knob that does nothing beside some values of another knob, and has no condition that says so."""
    for other, useful in CATALOGUE[name].applies.items():
        possible = _values_of(spec, other)
        idle = [value for value in possible if value not in useful]
        is_guarded = other in domain.when and set(domain.when[other]) <= set(useful)
        if idle and not is_guarded:
            yield LintWarning(f"space.{name}", _without_effect(other, possible, idle, useful))


def _without_effect(other: str, possible: Sequence[Scalar], idle: Sequence[Scalar], useful: Sequence[Scalar]) -> str:
    if len(idle) == len(possible):
        return f"does nothing here: it applies when {other} is {_or(useful)}, and {other} is {_or(possible)}"
    listed = ", ".join(str(value) for value in possible if value not in idle)
    return f"does nothing when {other} is {_or(idle)}; add when: {{{other}: [{listed}]}}"


def _batch_size(spec: StudySpec) -> Iterator[LintWarning]:
    largest = _largest(spec.space.get("batch_size"))
    samples = spec.objective.samples if isinstance(spec.objective, ObjectiveSpec) else None
    if largest is not None and samples is not None and largest > samples:
        yield LintWarning(
            "space.batch_size", f"up to {largest:g} images per step, of {samples} in all (objective.samples)"
        )


def _early_stopping(spec: StudySpec) -> Iterator[LintWarning]:
    asha, epochs = spec.early_stopping.asha, spec.budget.epochs
    grace = asha.grace_epochs if asha is not None else None
    warmup = _largest(spec.space.get("warmup_epochs"))
    if grace is not None and grace < round(epochs / 12):
        least = round(epochs / 12)
        yield LintWarning(
            "early_stopping.asha.grace_epochs",
            f"after {grace} of {epochs} epochs trials cannot be told apart well; {least} or more is better",
        )
    if warmup is not None and warmup >= epochs:
        yield LintWarning("space.warmup_epochs", f"up to {warmup:g} epochs of warm-up in a trial of {epochs}")


def _target(spec: StudySpec) -> Iterator[LintWarning]:
    target = spec.budget.target
    if target is not None and target > 1 and spec.objective.metric == "val_accuracy":
        yield LintWarning("budget.target", f"{target:g} is never reached: accuracy is a fraction, at most 1")


def _prior(spec: StudySpec) -> Iterator[LintWarning]:
    stated = {name: belief for name, belief in spec.prior.knobs.items() if belief.cases}
    if stated and not uses_prior(spec):
        samplers = " or ".join(PRIOR_SAMPLERS)
        yield LintWarning("prior", f"the sampler {sampler_of(spec)} does not use it; write search.sampler: {samplers}")
    for name, belief in stated.items():
        for when, _ in belief.cases:
            yield from _never_holds(spec, name, when)


def _never_holds(spec: StudySpec, name: str, when: Condition) -> Iterator[LintWarning]:
    """Of a centre whose condition wants values that the space never gives."""
    for other, wanted in when.items():
        possible = _values_of(spec, other)
        if possible and not set(possible) & set(wanted):
            yield LintWarning(f"prior.{name}", f"never holds in this space: {other} would have to be {_or(wanted)}")


def _trials(spec: StudySpec) -> Iterator[LintWarning]:
    trials, domains = spec.budget.trials, [spec.space[name] for name in searched(spec)]
    if not domains:
        if trials > 1:
            yield LintWarning("budget.trials", f"nothing moves in this space, so all {trials} trials are the same")
        return
    size = math.prod(map(_size, domains))
    if size < trials and spec.search.sampler != "grid":  # a grid goes round again with other seeds
        yield LintWarning("budget.trials", f"{trials} trials of a space with {size:g} configurations")
    starting = _starting_trials(spec)
    # Fewer trials than that are a random search by intent; with many more the model has its say.
    if starting < trials < 1.5 * starting:
        yield LintWarning("budget.trials", f"the first {starting} of {trials} trials are drawn at random")


def _starting_trials(spec: StudySpec) -> int:
    """The trials that a sampler draws at random before it has a model; 0 for one that has none."""
    # The first trials of the Gaussian process are the defaults and half of the budget at most.
    return 10 if sampler_of(spec) == "tpe" else 0


def _values_of(spec: StudySpec, name: str) -> list[Scalar]:
    domain = spec.space.get(name)
    if domain is None:
        return [CATALOGUE[name].default({})]
    if isinstance(domain, Fixed):
        return [domain.value]
    return list(domain.values) if isinstance(domain, Choice) else []


def _largest(domain: Domain | None) -> float | None:
    match domain:
        case FloatRange(high=high) | IntRange(high=high):
            return high
        case Fixed(value=value):
            values: tuple[Scalar, ...] = (value,)
        case Choice(values=values):
            pass
        case _:
            return None
    numbers = [value for value in values if isinstance(value, int | float)]
    return max(numbers) if numbers else None


def _size(domain: Domain) -> float:
    match domain:
        case Choice(values=values):
            return len(values)
        case IntRange(low=low, high=high, step=step):
            return (high - low) // step + 1
        case FloatRange(low=low, high=high, step=step) if step is not None:
            return round((high - low) / step, 6) + 1  # max is the last step, up to rounding
        case _:
            return math.inf


def _or(values: Sequence[Scalar]) -> str:
    return " or ".join(map(str, values))


_CHECKS: Sequence[Callable[[StudySpec], Iterator[LintWarning]]] = (
    _learning_rate,
    _conditions,
    _batch_size,
    _early_stopping,
    _target,
    _prior,
    _trials,
)
