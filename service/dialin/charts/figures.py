"""Figures, as PNG files. matplotlib is loaded when the first one is drawn."""

from __future__ import annotations

from pathlib import Path

from dialin.specification.range_tests import Calibration, RateBounds

COLUMNS = 3


def plot_range_tests(calibration: Calibration, path: Path) -> None:
    """Accuracy over the learning rate of every run of every combination, with the bounds that are searched shaded."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(calibration.bounds) // COLUMNS)
    columns = min(COLUMNS, len(calibration.bounds))
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for index, tested in enumerate(calibration.bounds):
        _plot_one(figure.add_subplot(rows, columns, index + 1), tested)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _plot_one(axes: object, tested: RateBounds) -> None:
    from matplotlib.axes import Axes

    if not isinstance(axes, Axes):
        raise TypeError(f"{axes!r} are no axes")
    for curve in tested.curves:
        axes.plot(curve.rates, curve.accuracies, linewidth=1.2)
        if curve.diverged_at is not None:
            axes.axvline(curve.diverged_at, color="0.6", linestyle=":", linewidth=1)
    axes.axvspan(tested.low, tested.high, color="tab:green", alpha=0.15)
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("accuracy on held-out images")
    name = ", ".join(f"{knob} {value}" for knob, value in tested.combination.items()) or "range test"
    sure = tested.reading is not None and tested.reading.confident
    axes.set_title(f"{name}\n{tested.low:.2g} to {tested.high:.2g}{'' if sure else ' (low confidence)'}", fontsize=9)
