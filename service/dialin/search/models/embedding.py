"""Configurations as the features that a model measures distances in. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dialin.search.models.encoding import Array, Columns, Encoding, position_of
from dialin.specification.domains import Choice, Scalar
from dialin.specification.study_spec import StudySpec

ARC_RADIUS = 0.7
"""Radius of the arc that a conditional range is laid out on: the distance between having the knob and lacking it. The
ends of the range are 0.92 apart. Not tuned."""
PAIRS = 512
"""Random pairs of configurations for `typical_square`."""


class Embedding:
    """The features of one space.

    A range that every configuration has is its position, from 0 to 1. A conditional one is a point on an arc, and the
    origin where the configuration does not have it (Swersky et al. 2014, Raiders of the lost architecture: a kernel for
    Bayesian optimization in conditional parameter spaces): every distance then is one between points, so that the
    kernel is valid, and two configurations that both lack a knob do not differ in it. A choice has one feature for each
    value, all 0 where it is absent; two different values are 1 apart.
    """

    def __init__(self, spec: StudySpec, encoding: Encoding) -> None:
        self._spec, self._encoding = spec, encoding
        widths = [self._width(name) for name in encoding.names]
        self._starts = dict(zip(encoding.names, itertools.accumulate([0, *widths]), strict=False))
        self.count = sum(widths)
        """The number of features."""
        self.groups: NDArray[np.int_] = np.repeat(np.arange(len(widths)), widths)
        """(count,) The searched knob, by its index, that each feature belongs to."""

    def features(self, params: Mapping[str, Scalar]) -> Array:
        """(count,) The features of a configuration."""
        row = np.zeros(self.count)
        for name, start in self._starts.items():
            domain = self._spec.space[name]
            if name not in params:
                continue
            if isinstance(domain, Choice):
                row[start + position_of(domain, params[name])] = 0.5**0.5
            else:
                unit = np.array([self._encoding.unit(name, params)])
                row[start : start + self._width(name)] = self._laid_out(name, unit)[0]
        return row

    def features_of(self, columns: Columns, count: int) -> Array:
        """(count, features) The features of `count` configurations."""
        rows = np.zeros((count, self.count))
        for name, start in self._starts.items():
            domain, here = self._spec.space[name], np.flatnonzero(columns.exists[name])
            values = columns.values[name][here]
            if isinstance(domain, Choice):
                rows[here, start + values.astype(int)] = 0.5**0.5
            else:
                rows[here, start : start + self._width(name)] = self._laid_out(name, self._encoding.units(name, values))
        return rows

    def typical_square(self) -> float:
        """The mean squared distance between two random configurations."""
        points = np.random.default_rng(0).random((2 * PAIRS, len(self._encoding.names)))
        features = self.features_of(self._encoding.columns(points), len(points))
        return float(((features[:PAIRS] - features[PAIRS:]) ** 2).sum(axis=1).mean())

    def _width(self, name: str) -> int:
        domain = self._spec.space[name]
        if isinstance(domain, Choice):
            return len(domain.values)
        return 2 if domain.when else 1

    def _laid_out(self, name: str, units: Array) -> Array:
        """(n, 1 or 2) The features of a range's positions (n,)."""
        if not self._spec.space[name].when:
            return units[:, None]
        angles = units / ARC_RADIUS
        return ARC_RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)
