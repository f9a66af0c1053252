"""Interface of every detector, and the default training."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from forensics import checks
from forensics.preprocess.base import Draws

if TYPE_CHECKING:
    from forensics.detectors.card import DetectorCard


class Schedule(StrEnum):
    """Schedule of the learning rate."""

    constant = "constant"
    cosine = "cosine"


@dataclass(kw_only=True)
class Optimization:
    """Settings of Adam and its learning rate, which a detector's settings inherit.

    Attributes:
        learning_rate: Adam's, at its maximum.
        betas: Adam's decay rates of the two moments, each in [0, 1).
        weight_decay: Adam's L2 penalty, >= 0.
        schedule: ``constant``, or ``cosine``: falls to 0 over all epochs as half a cosine.
        warmup_epochs: epochs, >= 0 and not necessarily integers, in which the learning rate rises
            linearly from 0.
    """

    learning_rate: float
    betas: list[float]
    weight_decay: float
    schedule: Schedule
    warmup_epochs: float

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        self.schedule = Schedule(self.schedule)  # plain text in a detector file
        checks.adam(self, "model.")
        checks.at_least(self, "model.", weight_decay=0, warmup_epochs=0)

    def factor(self, epoch: float, epochs: int) -> float:
        """The factor on ``learning_rate`` at a point of the training.

        Args:
            epoch: epochs trained so far, not necessarily an integer.
            epochs: epochs of the complete training.
        """
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        if self.schedule is Schedule.constant:
            return 1.0
        rest = max(epochs - self.warmup_epochs, 1e-9)
        done = min((epoch - self.warmup_epochs) / rest, 1.0)
        return (1 + math.cos(math.pi * done)) / 2

    @property
    def changes(self) -> bool:
        """Whether the learning rate varies."""
        return self.schedule is not Schedule.constant or self.warmup_epochs > 0


class Step(NamedTuple):
    """Result of one training step.

    Attributes:
        loss: scalar, the mean over the batch; None if nothing is trained by gradient.
        scores: ``(B,)`` float32 of the same pass, higher for real; None if there are none.
        logged: further scalars to log, by name.
    """

    loss: Tensor | None
    scores: Tensor | None
    logged: Mapping[str, Tensor] = {}


class Detector(nn.Module, ABC):
    """A network that scores images, and its training.

    Independent of data modules and Lightning. The training loop calls `prepare` once, then, for
    each batch, `step`, a step of `optimizer` with its loss, and `after_step`. Normalisation,
    resizing for a backbone and front ends are inside `forward`: every detector of a study gets the
    same pixels, and the exported graph is the complete network.

    Args:
        optimization: settings of the default `optimizer`; None for a detector with another or none.

    Attributes:
        made_from: metadata of the trained detectors whose weights it started with or contains;
            what those were trained on is not unseen by it.
    """

    one_class: ClassVar[bool] = False
    """Whether it learns from real images alone; then ``dataset.train_on`` may be empty."""

    any_size: ClassVar[bool] = False
    """Whether it scores squares larger than those it was built for, as one image. Of others, crops
    of a grid are scored, and their mean is the score."""

    def __init__(self, optimization: Optimization | None = None) -> None:
        super().__init__()
        self.optimization = optimization
        self.made_from: list[DetectorCard] = []

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Score ``(B, 3, S, S)`` float pixel values in [0, 255].

        Returns:
            ``(B,)`` float32, also under autocast; higher for real, on any scale.
        """

    def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
        """Score a batch and compute its loss, by default binary cross-entropy on the score.

        In evaluation mode this is the validation loss.

        Args:
            images: as in `forward`.
            labels: ``(B,)`` float, 1 for real and 0 for generated.
            draws: source of every random number.
        """
        scores = self(images)
        return Step(binary_cross_entropy_with_logits(scores, labels), scores)

    def crops(self, images: Tensor, size: int) -> list[Tensor]:
        """The parts of images that are scored one by one.

        Args:
            images: ``(B, 3, side, side)``.
            size: height and width that the detector was built for, at most ``side``.

        Returns:
            The images themselves for a detector of `any_size`; otherwise crops of ``size`` by row
            and column, as few as cover the images, at equal distances up to rounding.
        """
        side = images.shape[-1]
        if self.any_size or side == size:
            return [images]
        steps = -(-side // size) - 1
        corners = [round(step * (side - size) / steps) for step in range(steps + 1)]
        return [
            images[:, :, top : top + size, left : left + size]
            for top in corners
            for left in corners
        ]

    @property
    def is_probabilistic(self) -> bool:
        """Whether scores are logits: at 0, real and generated are equally likely.

        True for detectors trained with the default `step`.
        """
        return type(self).step is Detector.step

    def optimizer(self) -> torch.optim.Optimizer | None:
        """Make the optimizer, by default Adam over all trainable parameters; None for none."""
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.optimization is None or not trainable:
            return None
        betas = self.optimization.betas
        return torch.optim.Adam(
            trainable,
            lr=self.optimization.learning_rate,
            betas=(betas[0], betas[1]),
            weight_decay=self.optimization.weight_decay,
        )

    def after_step(self) -> None:
        """Hook after each optimizer step, such as a projection; does nothing by default."""
        return

    def prepare(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Hook before the first epoch, with one pass over the training images; no-op by default.

        For statistics of the data and closed-form fits.

        Args:
            batches: images and labels as in `step`, augmented as in the first epoch; computed
                only if iterated over.
        """
        return

    def features(self, images: Tensor) -> Tensor | None:
        """Penultimate-layer features, ``(B, ...)``, of images as in `forward`.

        Returns:
            None, the default, for a detector without them: reports omit the section.
        """
        return None

    def file_settings(self) -> dict[str, Any]:
        """Settings that its file has instead of those it was made with; by default none."""
        return {}

    def saliency_layer(self) -> nn.Module | None:
        """The module whose output is the last feature maps, ``(B, C, h, w)``, for Grad-CAM.

        Returns:
            None, the default, for a detector without them: it has no explanations.
        """
        return None


def to_unit_range(images: Tensor) -> Tensor:
    """Scale pixel values from [0, 255] to [-1, 1]."""
    return images / 127.5 - 1


def linear_scores(unit: nn.Linear, features: Tensor) -> Tensor:
    """Scores of a linear unit, in float32 even under autocast.

    With bfloat16's 8 bits, scores of many images would tie.

    Args:
        unit: a linear unit of one output.
        features: ``(..., C)``, C as many as ``unit`` has inputs.

    Returns:
        ``(...,)`` float32.
    """
    with torch.autocast(features.device.type, enabled=False):
        scores: Tensor = unit(features.float())
    return scores.squeeze(-1)


class DetectorSettings(Protocol):
    """Interface of the settings of every detector."""

    def build(self, image_size: int, *, pretrained: bool) -> Detector:
        """Make the detector, with fresh weights from torch's global generator.

        Args:
            image_size: height and width of the images in pixels.
            pretrained: load a backbone's pretrained weights; False if a file has all weights. Of no
                effect where there are none.

        Raises:
            UserError: if it cannot score images of this size.
        """
        ...
