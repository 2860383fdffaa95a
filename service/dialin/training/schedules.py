"""Learning-rate schedules: the factor on the base rate, a pure function of the step (plateau looks back instead)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dialin.specification.domains import Scalar

MILESTONES = (0.5, 0.75)  # of the training, as He et al. 2016 have them on CIFAR-10
SIGMOID_STEEPNESS = 10.0
ONE_CYCLE_RISE, ONE_CYCLE_START, ONE_CYCLE_END = 0.3, 1 / 25, 1 / 25e4


@dataclass(frozen=True)
class Moment:
    """Where a training is: `share` of all steps done, 0 to 1, and `epoch` done, whole or not."""

    share: float
    epoch: float


def fixed(_at: Moment, _params: Mapping[str, Scalar]) -> float:
    return 1.0


def step(at: Moment, params: Mapping[str, Scalar]) -> float:
    """decay_factor each time another decay_every of the training is over; Bengio 2012, section 3.1.1."""
    falls = math.floor(at.share / _number(params, "decay_every") + 1e-9)
    return float(_number(params, "decay_factor") ** falls)


def multistep(at: Moment, params: Mapping[str, Scalar]) -> float:
    """decay_factor at a half and again at three quarters of the training; He et al. 2016, section 4.2."""
    return float(_number(params, "decay_factor") ** sum(at.share >= milestone for milestone in MILESTONES))


def exponential(at: Moment, params: Mapping[str, Scalar]) -> float:
    """final_factor ^ share: the same ratio from each step to the next."""
    return float(_number(params, "final_factor") ** at.share)


def inverse(at: Moment, params: Mapping[str, Scalar]) -> float:
    """1 / (1 + k share) that ends at final_factor; Robbins and Monro 1951."""
    return 1 / (1 + (1 / _number(params, "final_factor") - 1) * at.share)


def polynomial(at: Moment, params: Mapping[str, Scalar]) -> float:
    """(1 - share) ^ power; Chen et al. 2017, section 4.1."""
    return float(max(0.0, 1 - at.share) ** _number(params, "power"))


def sigmoid(at: Moment, _params: Mapping[str, Scalar]) -> float:
    """A logistic fall centred on the half of the training, from nearly 1 to nearly 0."""
    return 1 / (1 + math.exp(SIGMOID_STEEPNESS * (at.share - 0.5)))


def cosine(at: Moment, _params: Mapping[str, Scalar]) -> float:
    """Half a cosine from 1 to 0; Loshchilov and Hutter 2017, equation 5 without restarts."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, at.share)))


def sgdr(at: Moment, params: Mapping[str, Scalar]) -> float:
    """Half cosines, the first over cycle_epochs, each cycle_growth times as long as the one before it; Loshchilov and
    Hutter 2017, equation 5."""
    length, growth, epoch = _number(params, "cycle_epochs"), _number(params, "cycle_growth"), at.epoch
    if growth == 1.0:
        epoch %= length
    else:
        # The cycle that `epoch` lies in, from the sum of the geometric series of the ones before.
        done = math.floor(math.log(epoch / length * (growth - 1) + 1, growth) + 1e-9)
        epoch -= length * (growth**done - 1) / (growth - 1)
        length *= growth**done
    return 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, epoch / length))))


def cyclical(at: Moment, params: Mapping[str, Scalar]) -> float:
    """Triangles between cycle_floor and 1, up and down in cycle_epochs; Smith 2017, section 3.1. triangular2 halves the
    height with each cycle; exp_range shrinks it to final height of a hundredth at the end of the training."""
    position, floor = at.epoch / _number(params, "cycle_epochs"), _number(params, "cycle_floor")
    cycle = math.floor(position)
    height = 1 - abs(2 * (position - cycle) - 1)
    shrink = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": 0.01**at.share}[str(params["cycle_shape"])]
    return float(floor + (1 - floor) * height * shrink)


def one_cycle(at: Moment, _params: Mapping[str, Scalar]) -> float:
    """Up from 1/25 along a cosine over the first 30 % of the training, then down to almost nothing; Smith and Topin
    2018, Super-convergence. The rate only: momentum stays."""
    if at.share < ONE_CYCLE_RISE:
        return _between(ONE_CYCLE_START, 1.0, at.share / ONE_CYCLE_RISE)
    return _between(1.0, ONE_CYCLE_END, (at.share - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))


SCHEDULES: Mapping[str, Callable[[Moment, Mapping[str, Scalar]], float]] = {
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


def learning_rate(params: Mapping[str, Scalar], at_step: int, steps_an_epoch: int, epochs: int) -> float:
    """The rate for step `at_step` (from 0): lr, scaled for the batch size, times the schedule's factor and the
    warm-up's, and never below min_lr. `params` is a whole configuration."""
    at = Moment(at_step / max(1, steps_an_epoch * epochs), at_step / steps_an_epoch)
    factor = SCHEDULES[str(params["schedule"])](at, params) * warmup_factor(params, at_step, steps_an_epoch)
    return max(_number(params, "min_lr"), base_rate(params) * factor)


LR_SCALING_REFERENCE = 128


def base_rate(params: Mapping[str, Scalar]) -> float:
    """lr at the top of the schedule: for lr_scaling linear times batch_size / 128 (Goyal et al. 2017, section 2.1), for
    square_root times its root (Krizhevsky 2014, section 5)."""
    ratio = _number(params, "batch_size") / LR_SCALING_REFERENCE
    exponent = {"none": 0.0, "linear": 1.0, "square_root": 0.5}[str(params["lr_scaling"])]
    return float(_number(params, "lr") * ratio**exponent)


def warmup_factor(params: Mapping[str, Scalar], at_step: int, steps_an_epoch: int) -> float:
    """From near 0 to 1 over the warm-up, along a line (Goyal et al. 2017, section 2.2) or a parabola; then 1."""
    steps = _number(params, "warmup_steps") or _number(params, "warmup_epochs") * steps_an_epoch
    if params["warmup"] == "none" or steps <= 0:
        return 1.0
    share = min(1.0, (at_step + 1) / steps)
    return share * share if params["warmup"] == "quadratic" else share


@dataclass
class Plateau:
    """The factor of the plateau schedule: multiplied by `decay_factor` when the value it watches has not become better
    for more than `patience` epochs. "Better" is lower for mode "min", higher for "max"."""

    patience: int = 2
    decay_factor: float = 0.1
    mode: str = "min"
    factor: float = 1.0
    best: float = math.nan
    waited: int = 0

    def observe(self, value: float) -> None:
        better = value < self.best if self.mode == "min" else value > self.best
        if better or math.isnan(self.best):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.factor, self.waited = self.factor * self.decay_factor, 0


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


def _number(params: Mapping[str, Scalar], name: str) -> float:
    return float(params[name])  # type: ignore[arg-type]
