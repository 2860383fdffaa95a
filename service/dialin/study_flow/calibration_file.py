"""The file of a study's range tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dialin.errors import UnreadableError, reading
from dialin.specification.range_tests import Calibration, Curve, RateBounds, Reading
from dialin.texts import one_line


@dataclass(frozen=True)
class UnreadableCalibration:
    """Takes the place of the range tests of a study whose file is damaged."""

    text: str
    """Why the file cannot be read."""
    epochs: float = 0.0
    """Cost of the tests in epochs of training: 0, because it is unknown."""

    def lines(self) -> list[str]:
        """Return `text` as the only line, in the form of `Calibration.lines`."""
        return [self.text]


def write_calibration(file: Path, calibration: Calibration) -> None:
    """Replace the file atomically, so that a reader never sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(calibration)))
    partial.rename(file)


def read_calibration(file: Path) -> Calibration | UnreadableCalibration | None:
    """Return the range tests in a file; None when there is no file."""
    if not file.exists():
        return None
    try:
        with reading(f"the range tests in {file}"):
            return _calibration(json.loads(file.read_text()))
    except UnreadableError as error:
        return UnreadableCalibration(one_line(error, 300))


def _calibration(data: Mapping[str, Any]) -> Calibration:
    """The inverse of `asdict`."""
    bounds = [
        RateBounds(
            combination=entry["combination"],
            low=entry["low"],
            high=entry["high"],
            reading=Reading(**{**entry["reading"], "doubts": tuple(entry["reading"]["doubts"])})
            if entry["reading"]
            else None,
            curves=tuple(Curve(**{key: _tupled(value) for key, value in curve.items()}) for curve in entry["curves"]),
            rate=entry.get("rate"),  # versions before 2026-11-26 stored bounds only
        )
        for entry in data["bounds"]
    ]
    return Calibration(tuple(bounds), data["epochs"], tuple(data["warnings"]))


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
