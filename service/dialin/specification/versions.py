"""Versions of the language: each has a number, and an older one is brought to the newest step by step.

A specification that dialin stores names its version. One that was stored without is of version 0: what dialin wrote
before versions had numbers. A person may leave it out of a file, and means the newest then.

A new optional key needs no new version: a specification that does not use it stays readable by an older dialin. What
does need one is a key that is renamed or goes, and a default that changes, because defaults are not written out:
then the step to the new version writes the old default in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dialin.specification.study_spec import VERSION
from dialin.texts import show_value

Step = Callable[[dict[str, Any]], dict[str, Any]]


def _same_keys(data: dict[str, Any]) -> dict[str, Any]:
    """Version 0 has the keys and the defaults of version 1; only the number is new."""
    return data


STEPS: Mapping[int, Step] = {0: _same_keys}
"""The step from each older version to the next one; it gets, and gives back, the data of a whole specification."""


def upgrade(data: Mapping[str, Any], missing: int = VERSION) -> dict[str, Any]:
    """A specification's data brought to the newest version, which it then names.

    `missing`: the version of data that names none. Raises ValueError for a version that this dialin does not read.
    """
    version = data.get("version", missing)
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        raise ValueError(f"{show_value(version)} is not a version; this dialin reads versions up to {VERSION}")
    if version > VERSION:
        raise ValueError(
            f"version {version} was written by a newer dialin; this one reads versions up to {VERSION}: use the dialin "
            "that wrote it, or a newer one"
        )
    upgraded = dict(data)
    for step in range(version, VERSION):
        upgraded = STEPS[step](upgraded)
    return {**upgraded, "version": VERSION}
