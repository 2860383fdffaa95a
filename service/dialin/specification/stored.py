"""Specifications as studies store them: each is read once, and one that cannot be read harms its own study alone."""

from __future__ import annotations

from functools import lru_cache

from dialin.errors import DialinError, UnreadableError, reading
from dialin.specification.parsing import parse_stored
from dialin.specification.study_spec import StudySpec
from dialin.texts import one_line


# A list of studies reads every specification on each request, and they never change; hence the caches.
@lru_cache(maxsize=512)
def stored_spec(text: str) -> StudySpec:
    """The specification in a text that `to_yaml` made, of this version or an older one. Raises SpecError."""
    with reading("the specification"):
        return parse_stored(text)


@lru_cache(maxsize=512)
def damage_of(text: str) -> str:
    """Why a stored specification cannot be read, in a line; empty for one that can."""
    try:
        stored_spec(text)
    except DialinError as error:
        return one_line(f"the specification: {error}")
    return ""


def spec_of_study(study_id: str, text: str) -> StudySpec:
    """The specification that a study has stored. Raises UnreadableError, which names the study."""
    if damage := damage_of(text):
        raise UnreadableError(f"study {study_id} cannot be read as it is stored: {damage}")
    return stored_spec(text)
