"""One training step, shared by trials and by the learning-rate range test."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from dialin.specification.study_spec import Precision
from dialin.training.configuration import Configuration
from dialin.training.inputs import Statistics, prepare_images
from dialin.training.losses import LOSSES
from dialin.training.optimizers import Penalties, set_lr
from dialin.training.precision import autocast


class StepResult(NamedTuple):
    """What a step computed before it changed the weights, on the device of the network."""

    logits: Tensor
    """Outputs (n, classes) float32."""
    loss: Tensor
    """Training loss of the batch, a scalar."""


class TrainingStep:
    """Takes steps that train a network: forward pass, loss, backward pass, penalties, the optimizer's step.

    Nothing in it reads a number back from the device, so that a GPU never waits for Python.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        configuration: Configuration,
        statistics: Statistics,
        precision: Precision,
    ) -> None:
        self.model = model
        """The network that is trained."""
        self.optimizer = optimizer
        """Its optimizer."""
        self.precision = precision
        """The arithmetic of the forward pass, as `precision.resolve` gave it."""
        self._configuration = configuration
        self._statistics = statistics
        self._loss_of = LOSSES[configuration.loss.loss]
        self._penalties = Penalties(model, configuration)

    def logits(self, images: Tensor, network: nn.Module | None = None) -> Tensor:
        """Return the outputs (n, classes) float32 for images (n, c, h, w) with pixels from 0 to 255.

        `network` is another form of the model with the same weights, such as its compiled one; None: the model itself.
        """
        prepared = prepare_images(images, self._configuration.images.input, self._statistics)
        with autocast(self.precision, images.device):
            outputs: Tensor = (self.model if network is None else network)(prepared)
        return outputs.float()

    def take(self, images: Tensor, labels: Tensor, lr: float, network: nn.Module | None = None) -> StepResult:
        """Train on one batch with the learning rate `lr`. `network` as for `logits`."""
        set_lr(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.logits(images, network)
        loss = self._loss_of(logits, labels, self._configuration.loss.label_smoothing)
        loss.backward()
        self._penalties.apply_before_step(lr)
        self.optimizer.step()
        return StepResult(logits, loss)
