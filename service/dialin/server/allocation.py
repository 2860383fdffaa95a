"""How the cluster is divided among the studies that run on it. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dialin.errors import DialinError
from dialin.planning.plan import ClusterShape
from dialin.specification import stored_spec
from dialin.store.entries import Entry

_ROUNDING = 1e-9  # sums of fractions of a CPU are not exact


@dataclass(frozen=True)
class Demand:
    """What a study would take of the cluster if it were alone."""

    cpus: float
    """CPUs of one trial."""
    gpus: float
    """GPUs of one trial."""
    most: int
    """How many trials it would run at a time."""


def demand_of(entry: Entry) -> Demand:
    """A study's demand. A study whose specification cannot be read is driven by another version of dialin, if at all;
    it keeps the share that it has."""
    try:
        spec = stored_spec(entry.study.spec)
    except DialinError:
        share = entry.submission.concurrency if entry.submission is not None else None
        return Demand(1.0, 0.0, share or 1)
    asked = spec.resources
    return Demand(asked.cpus, asked.gpus or 0.0, min(asked.concurrency or spec.budget.trials, spec.budget.trials))


def fair_shares(shape: ClusterShape, demands: Mapping[str, Demand]) -> dict[str, int]:
    """How many trials each study may run at a time, by the study's id.

    Each study gets one. What is left goes trial by trial to the study that has least of the cluster, as long as it
    wants more and one more of its trials fits.
    """
    shares = dict.fromkeys(demands, 1)
    cpus = shape.cpus - sum(demand.cpus for demand in demands.values())
    gpus = shape.gpus - sum(demand.gpus for demand in demands.values())
    unsatisfied = set(demands)
    while unsatisfied:
        name = min(unsatisfied, key=lambda each: (shares[each] * _weight(shape, demands[each]), each))
        demand = demands[name]
        if shares[name] >= demand.most or demand.cpus > cpus + _ROUNDING or demand.gpus > gpus + _ROUNDING:
            unsatisfied.discard(name)
            continue
        shares[name] += 1
        cpus, gpus = cpus - demand.cpus, gpus - demand.gpus
    return shares


def fits(shape: ClusterShape, demands: list[Demand]) -> bool:
    """Whether the cluster has room for one trial of each study."""
    return sum(each.cpus for each in demands) <= shape.cpus and sum(each.gpus for each in demands) <= shape.gpus


def _weight(shape: ClusterShape, demand: Demand) -> float:
    """The part of the cluster that a trial takes, of CPUs or of GPUs, whichever is larger."""
    of_gpus = demand.gpus / shape.gpus if shape.gpus else 0.0
    return max(demand.cpus / shape.cpus if shape.cpus else 0.0, of_gpus, 1e-9)
