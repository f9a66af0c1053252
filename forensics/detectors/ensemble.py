"""A combination of trained detectors.

Source: of no paper; that only evidence for generated is to count, if a detector is not to be hurt
by another one that recognises nothing in an unseen generator's images, is Stay-Positive's argument
(arXiv 2502.07778).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from forensics import checks
from forensics.detectors.base import Detector, Step
from forensics.errors import UserError
from forensics.preprocess.base import Draws

if TYPE_CHECKING:
    from forensics.detectors.card import DetectorCard


class Rule(StrEnum):
    """Combination of standardised scores.

    Attributes:
        mean: their mean.
        largest: the lowest one, which is the largest evidence for generated.
    """

    mean = "mean"
    largest = "largest"


class Ensemble(Detector):
    """Trained detectors, each standardised by its scores of validation real images, combined.

    Its members are not trained further. They are ordered by their cards, so that the order in which
    they are named has no effect.

    Args:
        members: detectors with the metadata of their files.
        rule: the combination.

    Raises:
        UserError: if a member cannot be standardised, or members expect images prepared in
            different ways.
    """

    one_class = True  # nothing is learnt from the images
    mean: Tensor
    std: Tensor

    def __init__(self, members: Sequence[tuple[Detector, "DetectorCard"]], rule: Rule) -> None:
        super().__init__()
        members = sorted(members, key=lambda member: repr(member[1]))
        self.made_from = [card for _, card in members]
        self._rule = rule
        self.members = nn.ModuleList(detector for detector, _ in members).requires_grad_(False)
        calibrations = [card.calibration for card in self.made_from]
        for card, calibration in zip(self.made_from, calibrations, strict=True):
            if not calibration.real_std:
                raise UserError(
                    f"A {card.model} of model.members has no standard deviation of its scores of "
                    "validation real images: train it again with this version, on more images.",
                    key="model.members",
                )
        self.register_buffer("mean", torch.tensor([one.real_mean for one in calibrations]))
        self.register_buffer("std", torch.tensor([one.real_std for one in calibrations]))

    def train(self, mode: bool = True) -> "Ensemble":
        """Set the mode of the ensemble; its members stay in evaluation mode."""
        super().train(mode)
        self.members.eval()
        return self

    def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
        """Nothing: the members are trained."""
        return Step(None, None)

    def features(self, images: Tensor) -> Tensor:
        """Standardised scores of the members, ``(B, M)`` float32."""
        scores = torch.stack([member(images) for member in self.members], dim=1)
        return (scores - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Score images.

        Args:
            images: ``(B, 3, S, S)`` float in [0, 255].

        Returns:
            ``(B,)`` float32, in standard deviations of a member's scores of validation real images.
        """
        features = self.features(images)
        return features.mean(dim=1) if self._rule is Rule.mean else features.amin(dim=1)

    def file_settings(self) -> dict[str, Any]:
        """The cards of the members instead of their files."""
        return {"members": [card.to_file() for card in self.made_from]}


@dataclass(kw_only=True)
class EnsembleSettings:
    """Settings of the combination.

    Attributes:
        members: run folders or detector files, at least two. In the ensemble's own file they are
            the members' cards, since it contains their weights.
        rule: combination of standardised scores.
    """

    members: list[Any]
    rule: Rule

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        self.rule = Rule(self.rule)  # plain text in a detector file
        range_ = "be at least two run folders or detector files, as in [outputs/A,outputs/B]"
        checks.require(len(self.members) >= 2, "model.members", self.members, range_)

    def build(self, image_size: int, *, pretrained: bool) -> Ensemble:
        """Read the members, or make them from their cards, with fresh weights.

        Args:
            image_size: height and width of the images in pixels, and those of the members.
            pretrained: no effect; a member's file has all its weights.

        Raises:
            UserError: if a member's file cannot be read, is named twice, or is of another image
                size or preparation.
        """
        # Here, because members may be any detectors, this one included.
        from forensics.detectors import DETECTORS
        from forensics.detectors.card import DetectorCard
        from forensics.detectors.trained import load_detector

        members: list[tuple[Detector, DetectorCard]] = []
        weights: list[str] = []
        for member in self.members:
            if isinstance(member, str):
                with torch.device("cpu"):  # real weights, even where the ensemble is made without
                    detector, card, sha256 = load_detector(
                        Path(checks.expanded("model.members", member))
                    )
                if sha256 in weights:
                    raise UserError(
                        f"model.members has the detector of {member} twice: name each once.",
                        key="model.members",
                    )
                weights.append(sha256)
            else:
                card = DetectorCard.from_file(member)
                if card.model not in DETECTORS:
                    raise UserError(
                        f"a member is a {card.model} of {card.plugin or 'another version'}: "
                        "install it or name its module",
                        key="model.members",
                    )
                settings = DETECTORS[card.model](**card.model_settings)
                detector = settings.build(image_size, pretrained=False)
            checks.require(
                card.input.image_size == image_size,
                "dataset.image_size",
                image_size,
                f"be {card.input.image_size}, as for the {card.model} of model.members",
            )
            members.append((detector, card))
        return Ensemble(members, self.rule)
