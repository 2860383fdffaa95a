"""The catalogue: every training knob that a search space may name.

A new knob is one row in the file of its group, its function in `training/`, and its test. The table is data and imports
nothing heavy, so that the command line prints it at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from dialin.specification.catalogue.knob import Knob
from dialin.specification.catalogue.network import ARCHITECTURE, INPUT, NETWORK
from dialin.specification.catalogue.optimizer import OPTIMIZER
from dialin.specification.catalogue.regularization import REGULARIZATION
from dialin.specification.catalogue.schedule import SCHEDULE

CATALOGUE: Mapping[str, Knob] = {
    knob.name: knob for knob in (*ARCHITECTURE, *OPTIMIZER, *SCHEDULE, *NETWORK, *REGULARIZATION, *INPUT)
}
"""Every knob by its name; a knob comes after those that its conditions name."""

__all__ = ["CATALOGUE", "Knob"]
