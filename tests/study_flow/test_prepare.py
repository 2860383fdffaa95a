"""The first stage of a study: its plan and its data."""

from __future__ import annotations

import stat

from dialin.planning.plan import ClusterShape
from dialin.settings import Settings
from dialin.specification import parse_spec
from dialin.store.output_folder import open_output
from dialin.study_flow.prepare import prepare

SPEC = "{name: small, objective: {dataset: digits}, space: {lr: 0.1}, budget: {trials: 1, epochs: 1}}"


def test_an_output_folder_that_data_makes_is_private_from_the_start(tmp_path):
    settings = Settings.read({}, out=str(tmp_path / "new"))
    prepare(parse_spec(SPEC), settings, ClusterShape(cpus=2.0), lambda _text: None)
    assert stat.S_IMODE(settings.out.stat().st_mode) == 0o700
    notes: list[str] = []
    open_output(settings, notes.append)
    assert notes == []
