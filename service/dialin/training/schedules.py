"""Learning-rate schedules: the factor on the base rate as a pure function of the step; plateau alone looks at metrics.

A new schedule is a function here, its row in `SCHEDULES`, its name among the choices of the knob `schedule` in
`specification/catalogue/schedule.py`, and a row in the table of `tests/training/test_steps.py`. A knob of its own is a
row in that catalogue too, and a field of `configuration.ScheduleKnobs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dialin.training.configuration import Configuration, OptimizerKnobs, ScheduleKnobs

MILESTONES = (0.5, 0.75)
"""Fractions of the training at which multistep falls, as in He et al. 2016 on CIFAR-10."""
SIGMOID_STEEPNESS = 10.0
"""Steepness of sigmoid per whole training: its factor starts at 0.993 and ends at 0.007."""
ONE_CYCLE_RISE = 0.3
"""Fraction of the training during which one_cycle rises; this and the next two are torch's OneCycleLR's defaults."""
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 25e4
"""First and last factor of one_cycle."""


@dataclass(frozen=True)
class Moment:
    """A point in time of a training."""

    progress: float
    """Fraction of all steps that are done, 0 to 1."""
    epoch: float
    """Epochs that are done, with their fraction."""


def fixed(_at: Moment, _knobs: ScheduleKnobs) -> float:
    """The base rate throughout. For plateau too, whose factor comes from `Plateau`."""
    return 1.0


def step(at: Moment, knobs: ScheduleKnobs) -> float:
    """One more decay_factor after each decay_every of the training; Bengio 2012, section 3.1.1."""
    # The small number keeps a fall at its step where the division ends just below a whole number.
    falls = math.floor(at.progress / knobs.decay_every + 1e-9)
    return float(knobs.decay_factor**falls)


def multistep(at: Moment, knobs: ScheduleKnobs) -> float:
    """One decay_factor after half, another after three quarters of the training; He et al. 2016, section 4.2."""
    return float(knobs.decay_factor ** sum(at.progress >= milestone for milestone in MILESTONES))


def exponential(at: Moment, knobs: ScheduleKnobs) -> float:
    """final_factor ^ progress: the same ratio from each step to the next."""
    return float(knobs.final_factor**at.progress)


def inverse(at: Moment, knobs: ScheduleKnobs) -> float:
    """1 / (1 + k progress), with the k that ends at final_factor; Robbins and Monro 1951."""
    return 1 / (1 + (1 / knobs.final_factor - 1) * at.progress)


def polynomial(at: Moment, knobs: ScheduleKnobs) -> float:
    """(1 - progress) ^ power; Chen et al. 2017, section 4.1."""
    return float(max(0.0, 1 - at.progress) ** knobs.power)


def sigmoid(at: Moment, _knobs: ScheduleKnobs) -> float:
    """A logistic fall from nearly 1 to nearly 0, centred on the middle of the training."""
    return 1 / (1 + math.exp(SIGMOID_STEEPNESS * (at.progress - 0.5)))


def cosine(at: Moment, _knobs: ScheduleKnobs) -> float:
    """Half a cosine from 1 to 0; Loshchilov and Hutter 2017, equation 5 without restarts."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, at.progress)))


def sgdr(at: Moment, knobs: ScheduleKnobs) -> float:
    """Half cosines with warm restarts; Loshchilov and Hutter 2017, equation 5.

    The first cycle takes cycle_epochs, each further one cycle_growth times as long as the one before.
    """
    length, growth, epoch = knobs.cycle_epochs, knobs.cycle_growth, at.epoch
    if growth == 1.0:
        epoch %= length
    else:
        # The lengths of the cycles are a geometric series; its sum, solved for the count, gives the complete cycles.
        done = math.floor(math.log(epoch / length * (growth - 1) + 1, growth) + 1e-9)
        epoch -= length * (growth**done - 1) / (growth - 1)
        length *= growth**done
    return 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, epoch / length))))


def cyclical(at: Moment, knobs: ScheduleKnobs) -> float:
    """Triangles between cycle_floor and 1, up and down in cycle_epochs; Smith 2017, section 3.1.

    triangular2 halves the height with each cycle; exp_range shrinks it exponentially to 1/100 at the end of the
    training.
    """
    position, floor = at.epoch / knobs.cycle_epochs, knobs.cycle_floor
    cycle = math.floor(position)
    height = 1 - abs(2 * (position - cycle) - 1)
    shrink = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": 0.01**at.progress}[knobs.cycle_shape]
    return float(floor + (1 - floor) * height * shrink)


def one_cycle(at: Moment, _knobs: ScheduleKnobs) -> float:
    """Up from 1/25 along a cosine over the first 30 % of the training, then down to 4e-6; Smith and Topin 2018.

    Only the learning rate follows the cycle; the momentum stays as it is, unlike in the paper.
    """
    if at.progress < ONE_CYCLE_RISE:
        return _between(ONE_CYCLE_START, 1.0, at.progress / ONE_CYCLE_RISE)
    return _between(1.0, ONE_CYCLE_END, (at.progress - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))


SCHEDULES: Mapping[str, Callable[[Moment, ScheduleKnobs], float]] = {
    "fixed": fixed,
    "step": step,
    "multistep": multistep,
    "exponential": exponential,
    "inverse": inverse,
    "polynomial": polynomial,
    "sigmoid": sigmoid,
    "cosine": cosine,
    "sgdr": sgdr,
    "cyclical": cyclical,
    "one_cycle": one_cycle,
    "plateau": fixed,
}


LR_SCALING_REFERENCE = 128
"""Batch size at which lr_scaling leaves `lr` as it is."""


def learning_rate(configuration: Configuration, at_step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return the learning rate of step `at_step` (from 0): base rate times schedule times warm-up, at least min_lr."""
    knobs = configuration.schedule
    at = Moment(at_step / max(1, steps_per_epoch * epochs), at_step / steps_per_epoch)
    factor = SCHEDULES[knobs.schedule](at, knobs) * warmup_factor(knobs, at_step, steps_per_epoch)
    return max(knobs.min_lr, base_rate(configuration.optimizer) * factor)


def base_rate(knobs: OptimizerKnobs) -> float:
    """Return the learning rate at the top of the schedule: lr times the lr_scaling for the batch size.

    The scaling is batch_size / 128 for linear (Goyal et al. 2017, section 2.1), and its square root for square_root
    (Krizhevsky 2014, section 5).
    """
    exponent = {"none": 0.0, "linear": 1.0, "square_root": 0.5}[knobs.lr_scaling]
    return float(knobs.lr * (knobs.batch_size / LR_SCALING_REFERENCE) ** exponent)


def warmup_factor(knobs: ScheduleKnobs, at_step: int, steps_per_epoch: int) -> float:
    """Return the warm-up's factor: up to 1 along a line (Goyal et al. 2017, section 2.2) or a parabola, then 1."""
    steps = knobs.warmup_steps or knobs.warmup_epochs * steps_per_epoch
    if knobs.warmup == "none" or steps <= 0:
        return 1.0
    progress = min(1.0, (at_step + 1) / steps)
    return progress * progress if knobs.warmup == "quadratic" else progress


@dataclass
class Plateau:
    """The factor of the plateau schedule, which falls after epochs without improvement. Updated by `observe`."""

    patience: int = 2
    """Epochs without improvement before a fall."""
    decay_factor: float = 0.1
    """Factor of each fall."""
    mode: str = "min"
    """Whether lower (min) or higher (max) values are better."""
    factor: float = 1.0
    """The factor as it stands."""
    best: float = math.nan
    """Best value so far; NaN before the first."""
    waited: int = 0
    """Epochs without improvement since the best value or the last fall."""

    def observe(self, value: float) -> None:
        """Take in the value of one more epoch."""
        better = value < self.best if self.mode == "min" else value > self.best
        if better or math.isnan(self.best):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.factor, self.waited = self.factor * self.decay_factor, 0


def _between(start: float, end: float, progress: float) -> float:
    """A half cosine from `start` at progress 0 to `end` at progress 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
