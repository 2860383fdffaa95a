"""LCBench as a plug-in of `search_quality.py`: real learning curves of tabular nets, by a surrogate (YAHPO Gym).

    SPACE           the seven training knobs, in the words of the surrogate
    Table(task)     curve(params) -> (val_accuracy per epoch in [0, 100], cumulative seconds per epoch)

Needs onnxruntime and the folder with model.onnx, encoding.json (DIALIN_LCBENCH, or ../shared/data/lcbench).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

EPOCHS = 52
DEVELOPMENT_TASKS = ("3945", "189908", "126026", "146212", "167104", "167161", "168331", "189354")
_CONTINUOUS = ("batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout")


def folder() -> Path:
    return Path(os.environ.get("DIALIN_LCBENCH") or Path(__file__).parents[3] / "shared" / "data" / "lcbench")


def load_space() -> dict[str, dict[str, float | bool]]:
    """Knob -> {low, high, log, integer}, from the surrogate's own description."""
    described = json.loads((folder() / "config_space.json").read_text())["hyperparameters"]
    return {
        knob["name"]: {
            "low": knob["lower"],
            "high": knob["upper"],
            "log": knob["log"],
            "integer": knob["type"] == "uniform_int",
        }
        for knob in described
        if knob["name"] in _CONTINUOUS
    }


class Table:
    """One task. `best` and `worst` are the best and the worst final... see `span`."""

    def __init__(self, task: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        path = str(folder() / "model.onnx")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        codes = json.loads((folder() / "encoding.json").read_text())["OpenML_task_id"]
        if task not in codes:
            raise SystemExit(f"LCBench has no task {task!r}; it has {', '.join(sorted(codes)[1:])}")
        self._code = codes[task]
        self.task = task

    def curves(self, configurations: list[Mapping[str, float]]) -> tuple[np.ndarray, np.ndarray]:
        """val_accuracy (n, 52) in per cent and cumulative seconds (n, 52)."""
        fixed = np.array([[params[name] for name in _CONTINUOUS] for params in configurations], np.float32)
        rows = np.repeat(fixed, EPOCHS, axis=0)
        epochs = np.tile(np.arange(1, EPOCHS + 1, dtype=np.float32), len(configurations))[:, None]
        inputs = {
            "x_cat": np.full((len(rows), 1), self._code, np.int32),
            "x_cont": np.concatenate([epochs, rows], axis=1),
        }
        output = self._session.run(None, inputs)[0].reshape(len(configurations), EPOCHS, -1)
        seconds = np.maximum.accumulate(np.maximum(output[:, :, 0], 1e-3), axis=1)
        return output[:, :, 1], seconds

    def span(self, samples: int = 20_000, seed: int = 0) -> tuple[float, float]:
        """The worst and the best accuracy to measure regret between: of many random configurations, at best epoch."""
        space = load_space()
        generator = np.random.default_rng(seed)
        unit = generator.random((samples, len(space)))
        drawn = [{name: from_unit(u, knob) for u, (name, knob) in zip(row, space.items(), strict=True)} for row in unit]
        tops = np.concatenate([self.curves(drawn[i : i + 500])[0].max(axis=1) for i in range(0, samples, 500)])
        return float(np.median(tops)), float(tops.max())


def from_unit(share: float, knob: Mapping[str, float | bool]) -> float:
    """A value of the knob at a share from 0 to 1 of its (log) range."""
    low, high = float(knob["low"]), float(knob["high"])
    if knob["integer"]:
        low, high = low - 0.499, high + 0.499
    value = float(low * (high / low) ** share) if knob["log"] else low + (high - low) * share
    return float(min(max(round(value), knob["low"]), knob["high"])) if knob["integer"] else value
