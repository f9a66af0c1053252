"""Networks: a front end, layers of a network's own, and a linear unit."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from forensics.detectors.base import Detector, Optimization, linear_scores
from forensics.detectors.front_ends import ConstrainedConvolution, FrontEnd, build_front_end


@dataclass(kw_only=True)
class NetworkSettings(Optimization):
    """Settings of every network, in addition to Adam's.

    Attributes:
        front_end: input of the first layer; ``rgb`` in older files without the setting.
        only_generated_evidence: whether features can lower the score only: negative ones are set to
            0, and the linear unit's weights are at most 0. So nothing that looks real can outweigh
            what looks generated. Not so in older files without the setting.
    """

    front_end: FrontEnd = FrontEnd.rgb
    only_generated_evidence: bool = False

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        self.front_end = FrontEnd(self.front_end)  # plain text in a detector file


class Network(Detector):
    """A detector that scores penultimate features of a front end by a linear unit.

    A subclass makes its layers, for ``front_end.channels`` input channels, and ``score``, after
    calling this constructor, and defines `body`.

    Args:
        settings: settings of the network.
        filters: number of filters of a `ConstrainedConvolution`.

    Attributes:
        front_end: `forensics.detectors.front_ends.build_front_end`'s.
        score: the linear unit, of one output.

    Source of ``only_generated_evidence``: Stay-Positive, arXiv 2502.07778, which fits the last
    layer anew under the constraint; here the complete network is trained under it. The bias is not
    constrained: it is the score of an image without evidence, the same for all.
    """

    score: nn.Linear

    def __init__(self, settings: NetworkSettings, *, filters: int = 3) -> None:
        super().__init__(settings)
        self.front_end = build_front_end(settings.front_end, filters)
        self._only_generated_evidence = settings.only_generated_evidence

    @abstractmethod
    def body(self, inputs: Tensor) -> Tensor:
        """Penultimate features.

        Args:
            inputs: the front end's output, ``(B, front_end.channels, H, W)``.

        Returns:
            ``(B, ...)``, as many for each image as ``score`` has inputs.
        """

    def features(self, images: Tensor) -> Tensor:
        """Penultimate-layer features, ``(B, ...)``, the linear unit's input."""
        features = self.body(self.front_end(images))
        return relu(features) if self._only_generated_evidence else features

    def forward(self, images: Tensor) -> Tensor:
        """Score images.

        Args:
            images: ``(B, 3, H, W)`` float in [0, 255].

        Returns:
            ``(B,)`` float32 logits, above 0 for real.
        """
        return linear_scores(self.score, self.features(images).flatten(1))

    def after_step(self) -> None:
        """Restore the constraints on weights."""
        if isinstance(self.front_end, ConstrainedConvolution):
            self.front_end.project()
        if self._only_generated_evidence:
            with torch.no_grad():
                self.score.weight.clamp_(max=0)
