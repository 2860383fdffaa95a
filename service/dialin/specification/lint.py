"""What is allowed but probably not meant. Each warning says what to write instead."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dialin.specification.catalogue import CATALOGUE
from dialin.specification.configuration import sampler_of
from dialin.specification.domains import Choice, Domain, Fixed, FloatRange, IntRange, Scalar
from dialin.specification.study_spec import ObjectiveSpec, StudySpec


@dataclass(frozen=True)
class LintWarning:
    """One doubt about a specification: the path it is about, and what to do."""

    path: str
    message: str


def lint(spec: StudySpec) -> list[LintWarning]:
    """All that looks unintended, in the order of the file."""
    return [*_learning_rate(spec), *_conditions(spec), *_batch_size(spec), *_early_stopping(spec), *_budget(spec)]


def _learning_rate(spec: StudySpec) -> Iterator[LintWarning]:
    domain = spec.space.get("lr")
    if not isinstance(domain, FloatRange):
        return
    if not domain.log and domain.low > 0 and domain.high / domain.low > 10:
        yield LintWarning("space.lr", "a learning rate acts by its order of magnitude; add log: true")
    if domain.high / max(domain.low, 1e-300) < 3:
        yield LintWarning("space.lr", f"{domain.low:g} to {domain.high:g} is less than a factor of 3; little to find")


def _conditions(spec: StudySpec) -> Iterator[LintWarning]:
    for name, domain in spec.space.items():
        for other, values in domain.when.items():
            possible = _values_of(spec, other)
            if possible and not any(value in possible for value in values):
                message = f"never exists in this space: {other} would have to be {_or(list(values))}"
                yield LintWarning(f"space.{name}", message)
        if isinstance(domain, Fixed) or not isinstance(spec.objective, ObjectiveSpec):
            continue
        for other, values in CATALOGUE[name].applies.items():
            possible = _values_of(spec, other)
            idle = [value for value in possible if value not in values]
            guarded = other in domain.when and all(value in values for value in domain.when[other])
            if not idle or guarded:
                continue
            useful = [value for value in possible if value in values]
            if not useful:
                message = f"does nothing here: it applies when {other} is {_or(values)}, and {other} is {_or(possible)}"
            else:
                listed = ", ".join(map(str, useful))
                message = f"does nothing when {other} is {_or(idle)}; add when: {{{other}: [{listed}]}}"
            yield LintWarning(f"space.{name}", message)


def _batch_size(spec: StudySpec) -> Iterator[LintWarning]:
    largest = _largest(spec.space.get("batch_size"))
    samples = spec.objective.samples if isinstance(spec.objective, ObjectiveSpec) else None
    if largest is not None and samples is not None and largest > samples:
        yield LintWarning(
            "space.batch_size", f"up to {largest:g} images a step, of {samples} in all (objective.samples)"
        )


def _early_stopping(spec: StudySpec) -> Iterator[LintWarning]:
    asha, epochs = spec.early_stopping.asha, spec.budget.epochs
    grace = asha.grace_epochs if asha is not None else None
    warmup = _largest(spec.space.get("warmup_epochs"))
    if grace is not None and grace < round(epochs / 12):
        least = round(epochs / 12)
        yield LintWarning(
            "early_stopping.asha.grace_epochs",
            f"after {grace} of {epochs} epochs little can be told of a trial; {least} or more is better",
        )
    if warmup is not None and warmup >= epochs:
        yield LintWarning("space.warmup_epochs", f"up to {warmup:g} epochs of warm-up in a trial of {epochs}")


def _budget(spec: StudySpec) -> Iterator[LintWarning]:
    target = spec.budget.target
    if target is not None and target > 1 and spec.objective.metric == "val_accuracy":
        yield LintWarning("budget.target", f"{target:g} is never reached: accuracy is a share, at most 1")
    moving = [domain for domain in spec.space.values() if not isinstance(domain, Fixed)]
    if not moving and spec.budget.trials > 1:
        yield LintWarning(
            "budget.trials", f"nothing moves in this space, so all {spec.budget.trials} trials are the same"
        )
        return
    size = math.prod(_size(domain) for domain in moving)
    if moving and size < spec.budget.trials and spec.search.sampler != "grid":  # a grid goes round with other seeds
        yield LintWarning("budget.trials", f"{spec.budget.trials} trials of a space with {size:g} configurations")
    starting = {"tpe": 10, "gp": max(8, len(moving) + 1)}.get(sampler_of(spec), 0)
    if starting < spec.budget.trials < 1.5 * starting:
        yield LintWarning("budget.trials", f"the first {starting} of {spec.budget.trials} trials are drawn blindly")


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


def _or(values: object) -> str:
    return " or ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)
