"""LCBench (Zimmer et al. 2021): curves of tabular networks, by the surrogate of YAHPO Gym (Pfisterer et al. 2022).

Needs onnxruntime, and model.onnx with encoding.json in the folder that DIALIN_LCBENCH names (else ../shared/data/lcbench
beside the project).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.benchmarks.curves.base import Params

TASKS = ("3945", "189908", "126026", "146212", "167104", "167161", "168331", "189354")
"""To develop on."""

JUDGING = (
    "7593",
    "126025",
    "167083",
    "167152",
    "167181",
    "167185",
    "167200",
    "168329",
    "168335",
    "168908",
    "189862",
    "189866",
)
"""To judge by: every second one of the others."""

OBJECTIVE = "{dataset: digits}"  # the knobs are those of the catalogue
MARKS = (5, 10, 20, 50)
CLOCKS = ("epochs", "seconds")
WORST = 0.0  # regret 1 is the worst random configuration
CLIMBS, MOVED = 14, (0.5,)
PRIORS = ("catalogue", "none")
_EPOCHS = 52
_SPACE = """
  batch_size: {min: 16, max: 512, log: true}
  lr: {min: 1e-4, max: 0.1, log: true}
  momentum: {min: 0.1, max: 0.99}
  weight_decay: {min: 1e-5, max: 0.1}
  depth: {min: 1, max: 5}
  width: {min: 64, max: 1024, log: true}
  dropout: {min: 0, max: 0.9999}
"""
_INPUTS = ("batch_size", "lr", "momentum", "weight_decay", "depth", "width", "dropout")  # after the epoch


def folder() -> Path:
    return Path(os.environ.get("DIALIN_LCBENCH") or Path(__file__).parents[4] / "shared" / "data" / "lcbench")


def epochs(task: str) -> int:
    return _EPOCHS


def space(task: str) -> str:
    return _SPACE


def load(task: str) -> LcBench:
    return LcBench(task)


class LcBench:
    """One data set: validation accuracy in per cent, and seconds made to rise."""

    def __init__(self, task: str) -> None:
        import onnxruntime

        if not folder().is_dir():
            raise SystemExit(f"no LCBench in {folder()}; name its folder with DIALIN_LCBENCH")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        codes = json.loads((folder() / "encoding.json").read_text())["OpenML_task_id"]
        if task not in codes:
            raise SystemExit(f"LCBench has no task {task!r}; it has {', '.join(sorted(codes)[1:])}")
        self._session = onnxruntime.InferenceSession(
            str(folder() / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._code = codes[task]

    def curves(self, configurations: Sequence[Params]) -> tuple[np.ndarray, np.ndarray]:
        knobs = np.array([[params[name] for name in _INPUTS] for params in configurations], np.float32)
        epochs = np.tile(np.arange(1, _EPOCHS + 1, dtype=np.float32), len(configurations))[:, None]
        inputs = {
            "x_cat": np.full((len(epochs), 1), self._code, np.int32),
            "x_cont": np.concatenate([epochs, np.repeat(knobs, _EPOCHS, axis=0)], axis=1),
        }
        output = self._session.run(None, inputs)[0].reshape(len(configurations), _EPOCHS, -1)
        seconds = np.maximum.accumulate(np.maximum(output[:, :, 0], 1e-3), axis=1)
        return output[:, :, 1].astype(float), seconds.astype(float)
