"""Predictions of a trained detector on new images: probability, verdict, and abstention.

The detector file has everything that scoring needs, so that images are processed as in the test.
"""

import copy
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from forensics.compute import Precision
from forensics.detectors import Detector
from forensics.detectors.card import CERTAIN_GENERATED, CERTAIN_REAL, DetectorCard
from forensics.detectors.trained import load_detector
from forensics.errors import UserError
from forensics.images.containers import DAMAGED, RejectedImage
from forensics.images.geometry import (
    Match,
    ResizeFilter,
    View,
    matched,
    to_square,
)
from forensics.images.perturbations import MILD_CHANGES, MILD_JPEG_QUALITY
from forensics.images.spectra import nearest, profiles
from forensics.scoring.explanation import grad_cam
from forensics.scoring.images import ImageLike, read_image
from forensics.scoring.scorer import Scorer

CHANGE_MARGIN = 2.0
"""Multiple of the largest change of a validation image's score that is still expected of others."""

_CHANGES_REASON = {
    "jpeg": f"verdict changes when saved as JPEG of quality {MILD_JPEG_QUALITY}",
    "rescale": "verdict changes when rescaled by half a pixel",
}


class Verdict(StrEnum):
    """Verdict on an image."""

    real = "real"
    generated = "generated"
    unsure = "unsure"


class Prediction(NamedTuple):
    """Prediction for one image; None where it could not be read.

    Attributes:
        probability_real: calibrated on the validation images of the training sources; also None
            for a detector without calibration.
        logit: the score that it was computed from, which does not saturate; higher for real.
        verdict: by the thresholds set on validation real images, not by probability 0.5.
        reason: reason of the verdict unsure, or "".
        width: width of the upright image in pixels.
        height: height of the upright image in pixels.
        format: JPEG, PNG or WEBP; "" for an image given as pixels.
        error: reason why it could not be read, or "".
        copies: mildly changed copies that were scored, separated by spaces: ``jpeg`` and
            ``rescale``, or "" if the score is so far from the thresholds that neither could change
            the verdict.
    """

    probability_real: float | None
    logit: float | None
    verdict: Verdict | None
    reason: str
    width: int | None
    height: int | None
    format: str
    error: str
    copies: str | None = None


class Scored(NamedTuple):
    """A prediction, and the scored square.

    Attributes:
        prediction: the prediction.
        square: ``(S, S, 3)`` uint8, the image as the detector sees it; None if it was not read.
    """

    prediction: Prediction
    square: NDArray[np.uint8] | None


class _Prepared(NamedTuple):
    """An image prepared for the detector, before and after matching, or an error."""

    square: NDArray[np.uint8] | None
    row: NDArray[np.uint8] | None
    unlike: bool
    width: int | None
    height: int | None
    format: str
    damage: str
    error: str


class Predictor:
    """A trained detector, ready for new images.

    Attributes:
        scorer: computes the scores.
        card: the metadata of its file.
        sha256: sha256 of its weights.
    """

    def __init__(self, detector: Detector, card: DetectorCard, sha256: str) -> None:
        self.card, self.sha256 = card, sha256
        input_ = card.input
        self.scorer = Scorer(detector, Precision(input_.precision), image_size=input_.image_size)

    @classmethod
    def load(cls, path: str | Path) -> "Predictor":
        """Read a detector file; no code in it is run.

        Args:
            path: a run's folder or its ``detector.safetensors``.

        Raises:
            UserError: if the file is missing, damaged, not a detector file or of another version.
        """
        return cls(*load_detector(Path(path)))

    def check_all(self) -> None:
        """Score both mildly changed copies of every image from here on, needed or not."""
        calibration = dataclasses.replace(self.card.calibration, largest_changes=None)
        self.card = dataclasses.replace(self.card, calibration=calibration)

    def predict(self, images: ImageLike | Iterable[ImageLike] | Tensor) -> list[Prediction]:
        """Score some images.

        Args:
            images: one or several, each as in `ImageLike`; or a batch ``(B, 3, H, W)`` uint8. Any
                size; the centre square is scored.

        Returns:
            One prediction per image, in order. For an image that cannot be read it has an
            ``error``.

        Raises:
            UserError: if a tensor is not uint8 or of another shape.
        """
        if isinstance(images, str | Path | bytes | Image.Image) or hasattr(images, "read"):
            images = [cast(ImageLike, images)]
        elif isinstance(images, Tensor):
            if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
                raise UserError(
                    "A batch must be (B, 3, H, W) uint8 grey levels, not "
                    f"{tuple(images.shape)} {images.dtype}."
                )
            images = list(images.permute(0, 2, 3, 1).cpu().numpy())
        elif isinstance(images, np.ndarray) and images.ndim in (2, 3):
            images = [images]
        return list(self.stream(images))

    def stream(self, images: Iterable[ImageLike]) -> Iterator[Prediction]:
        """Score any number of images in constant memory, in order, on all cores."""
        return (prediction for prediction, _ in self.stream_with_squares(images))

    def stream_with_squares(self, images: Iterable[ImageLike]) -> Iterator[Scored]:
        """Like `stream`, with the scored square of each image."""
        batches = _batches(images, self.scorer.batch_size)
        for batch in self.scorer.map_batches(self._score, batches):
            yield from batch

    def evidence(self, square: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Evidence map of a prepared image: real above 0, generated below.

        Args:
            square: ``(S, S, 3)`` uint8.

        Returns:
            ``(h, w)``, coarse; see `forensics.scoring.explanation.grad_cam`. Maps of crops are side
            by side.
        """
        crops = self.scorer.crops(square[None].copy())
        maps = [grad_cam(self._explained, crop)[0] for crop in crops]
        across = math.isqrt(len(maps))
        return np.block([maps[start : start + across] for start in range(0, len(maps), across)])

    @cached_property
    def _explained(self) -> Detector:
        """A copy of the detector: Captum adds hooks while other threads score with the original."""
        return copy.deepcopy(self.scorer.detector)

    def probability_real(self, score: float) -> float | None:
        """The calibrated probability of a score; None for a detector without calibration."""
        return self.card.calibration.probability_real(score)

    def _prepare(self, given: ImageLike) -> _Prepared:
        try:
            image, flag, format_ = read_image(given)
        except RejectedImage as error:
            return _unread(str(error))
        except OSError as error:
            return _unread(error.strerror or str(error))
        input_ = self.card.input
        filter_, match, view = (
            ResizeFilter(input_.resize_filter),
            Match(input_.match),
            View(input_.view),
        )
        width, height = image.size
        if view is View.crop and min(width, height) < input_.side:
            return _unread(
                f"{width}x{height} pixels, the detector needs {input_.side} native pixels per side"
            )
        square = to_square(image, input_.side, filter_, view)
        row = matched(square, match, filter_)
        damage = flag if flag.startswith(DAMAGED) else ""
        return _Prepared(square, row, self._is_unlike(row), *image.size, format_, damage, "")

    def _is_unlike(self, row: NDArray[np.uint8]) -> bool:
        """Whether an image's spectrum is unlike those of the training images."""
        guard = self.card.guard
        if guard is None:
            return False
        return bool(nearest(profiles(row[None]), guard.spectra)[0] > guard.limit)

    def _score(self, images: Sequence[ImageLike]) -> list[Scored]:
        """Decode and score a batch."""
        batch = [self._prepare(given) for given in images]
        read = [one for one in batch if one.row is not None]
        scores = self._finite_scores([one.row for one in read if one.row is not None])
        copies = self._score_copies([one.square for one in read if one.square is not None], scores)
        scored = []
        rest = zip(scores.tolist(), copies, strict=True)
        for prepared in batch:
            if prepared.row is None:
                unread = Prediction(None, None, None, "", None, None, "", prepared.error)
                scored.append(Scored(unread, None))
                continue
            logit, of_copies = next(rest)
            verdict, reason = self._verdict(prepared, logit, of_copies)
            prediction = Prediction(
                self.probability_real(logit),
                logit,
                verdict,
                reason,
                prepared.width,
                prepared.height,
                prepared.format,
                "",
                " ".join(of_copies),
            )
            scored.append(Scored(prediction, prepared.row))
        return scored

    def _score_copies(
        self, squares: Sequence[NDArray[np.uint8]], scores: NDArray[np.float32]
    ) -> list[dict[str, float]]:
        """Scores of the mildly changed copies of each image that could change its verdict."""
        input_ = self.card.input
        match, filter_ = Match(input_.match), ResizeFilter(input_.resize_filter)
        wanted = [
            (number, name)
            for number, score in enumerate(scores.tolist())
            for name in MILD_CHANGES
            if self._could_change(score, name)
        ]
        rows = [
            matched(MILD_CHANGES[name](squares[number]), match, filter_) for number, name in wanted
        ]
        # Few images need copies, which would be the smaller part of a full batch.
        of_rows = self._finite_scores(rows, max(1, self.scorer.batch_size // 4))
        copies: list[dict[str, float]] = [{} for _ in squares]
        for (number, name), score in zip(wanted, of_rows.tolist(), strict=True):
            copies[number][name] = score
        return copies

    def _could_change(self, score: float, name: str) -> bool:
        """Whether a mild change could move a score across a threshold."""
        largest = (self.card.calibration.largest_changes or {}).get(name)
        if largest is None:
            return True
        thresholds = self.card.calibration.thresholds
        distance = min(abs(score - thresholds[name]) for name in (CERTAIN_REAL, CERTAIN_GENERATED))
        return distance <= CHANGE_MARGIN * largest

    def _finite_scores(
        self, rows: Sequence[NDArray[np.uint8]], batch_size: int | None = None
    ) -> NDArray[np.float32]:
        """The scores of any number of rows.

        Raises:
            UserError: if one is not finite.
        """
        if not rows:
            return np.empty(0, np.float32)
        scores = self.scorer.score_rows(np.stack(rows), batch_size)
        if not np.isfinite(scores).all():
            raise UserError(
                "The detector gives a score that is not a finite number: train it again with "
                "a lower model.learning_rate.",
                key="model.learning_rate",
            )
        return scores

    def _verdict(
        self, prepared: _Prepared, logit: float, copies: Mapping[str, float]
    ) -> tuple[Verdict, str]:
        """The verdict, by the logits of an image and of its mildly changed copies."""
        itself = self.leaning(logit)
        size = self.card.input.side
        reasons = {
            "score between the thresholds at 1 % and 5 % FPR": itself is Verdict.unsure,
            **{
                _CHANGES_REASON[name]: self.leaning(score) is not itself
                for name, score in copies.items()
            },
            f"smaller than the {size} pixels the detector looks at": (
                prepared.width is not None
                and prepared.height is not None
                and min(prepared.width, prepared.height) < size
            ),
            "spectrum unlike those of the training images": prepared.unlike,
            prepared.damage: prepared.damage != "",
        }
        reason = "; ".join(text for text, holds in reasons.items() if holds)
        return (Verdict.unsure if reason else itself), reason

    def leaning(self, logit: float) -> Verdict:
        """The verdict by the thresholds alone, unsure between them."""
        thresholds = self.card.calibration.thresholds
        if logit >= thresholds[CERTAIN_REAL]:
            return Verdict.real
        return Verdict.generated if logit < thresholds[CERTAIN_GENERATED] else Verdict.unsure


def _batches(images: Iterable[ImageLike], size: int) -> Iterator[list[ImageLike]]:
    rest = iter(images)
    while batch := list(islice(rest, size)):
        yield batch


def limits(card: DetectorCard) -> list[str]:
    """The limits of a detector's scores, in sentences."""
    sources = ", ".join([*card.provenance.real, *card.provenance.trained_on])
    uncalibrated = [
        "There were no generated validation images for calibration: scores have no probability, "
        "and verdicts use the thresholds alone."
    ]
    return [
        *([] if card.calibration.temperature is not None else uncalibrated),
        "Thresholds, probabilities and false-positive rates are valid for images like the "
        f"validation images of the training sources ({sources}). "
        "Photographs of other cameras, crops or codecs can be called generated far more often: "
        "measure the rate with evaluate.py before relying on verdicts.",
        "Images of unseen generators may be called real throughout.",
        f"Images smaller than {card.input.side} pixels, and images with spectra unlike those "
        "of the training images, are outside the tested range; forensics predict calls them "
        f"{'unsure' if card.input.view == View.resize else 'unsure, or does not score them'}.",
    ]


def _unread(error: str) -> _Prepared:
    return _Prepared(None, None, False, None, None, "", "", error)
