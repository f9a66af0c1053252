"""A trained detector on new pictures: probabilities, verdicts, and when it had better not say.

Everything that scoring needs stands in the detector's file, so that a picture is treated here just
as the test images were.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from forensics import runs
from forensics.data.images import (
    POLICY_VERSION,
    Match,
    RejectedImage,
    ResizeFilter,
    decode,
    matched,
    recompressed,
    to_rgb,
    to_square,
)
from forensics.data.sources import in_order, torch_threads
from forensics.detectors import DETECTORS
from forensics.errors import UserError
from forensics.evaluation.evidence import grad_cam
from forensics.evaluation.metrics import sigmoid
from forensics.evaluation.robustness import zoomed
from forensics.evaluation.spectra import nearest, profiles
from forensics.model_files import load_model
from forensics.precision import Precision, in_bfloat16

Picture: TypeAlias = str | Path | Image.Image | NDArray[np.uint8]

BATCH_SIZE = 32
_BATCHES_AT_ONCE = 32
MILD_JPEG_QUALITY = 90
MILD_ZOOM_PIXELS = 0.5
CERTAIN_REAL, CERTAIN_GENERATED = "source_0.05", "source_0.01"
"""The thresholds from which on an image is real and below which it is generated."""


class Verdict(StrEnum):
    """What a detector says of a picture."""

    real = "real"
    generated = "generated"
    unsure = "unsure"


@dataclass
class Card:
    """What a detector's file says beside its weights.

    Attributes:
        model: one of `forensics.detectors.DETECTORS`.
        model_settings: its settings.
        image_size: height and width in pixels of what it scores.
        resize_filter: how pictures are made that small.
        match: the handling that all images have in common.
        decode_policy: version of the rules by which files became pixels.
        precision: in which numbers it was tested, as ``trainer.precision`` says it, and scores.
        thresholds: logits by name, as in ``result.json``; real from there on.
        temperature: probability of real is ``sigmoid(logit / temperature)``.
        spectra: by training source, ``mean`` and ``std`` of its images' radial profiles.
        spectrum_limit: distance to the nearest of them beyond which a picture is unlike them.
        real: real sources it was trained on.
        trained_on: generators it was trained on.
        preprocess: what was done to its training images.
        toy: whether these were toy faces.
        version: of this package, that wrote the file.
        git_commit: of the code that trained it.
    """

    model: str
    model_settings: dict[str, Any]
    image_size: int
    resize_filter: str
    match: str
    decode_policy: int
    precision: str
    thresholds: dict[str, float]
    temperature: float
    spectra: dict[str, dict[str, list[float]]]
    spectrum_limit: float
    real: list[str]
    trained_on: list[str]
    preprocess: str
    toy: bool
    version: str | None
    git_commit: str | None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Card":
        """What a file says, if it says all of it and nothing else.

        Raises:
            ValueError: with what is wrong.
        """
        names = [field.name for field in fields(cls)]
        if lacking := [name for name in names if name not in said]:
            raise ValueError(f"it says nothing of {', '.join(lacking)}")
        if unknown := sorted(set(said).difference(names)):
            raise ValueError(f"it says {', '.join(unknown)}, which is not known here")
        return cls(**said)

    def __post_init__(self) -> None:
        """Refuse what could not be scored with as it was meant.

        Raises:
            ValueError: with what is wrong.
        """
        if self.decode_policy != POLICY_VERSION:
            raise ValueError(
                f"decode_policy is {self.decode_policy}, this version's is {POLICY_VERSION}"
            )
        ResizeFilter(self.resize_filter)
        Match(self.match)
        Precision(self.precision)
        for name in (CERTAIN_REAL, CERTAIN_GENERATED):
            if name not in self.thresholds:
                raise ValueError(f"thresholds lack {name}")
        for name, threshold in self.thresholds.items():
            if not math.isfinite(threshold):
                raise ValueError(f"threshold {name} is {threshold}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature is {self.temperature}")
        if not (math.isfinite(self.spectrum_limit) and self.spectra):
            raise ValueError("spectra of the training images are missing")
        for source, spectrum in self.spectra.items():
            for name in ("mean", "std"):
                values = np.array(spectrum[name], np.float64)
                if values.shape != (self.image_size // 2 + 1,) or not np.isfinite(values).all():
                    raise ValueError(f"{name} of the spectra of {source} is no profile")


class Prediction(NamedTuple):
    """What a detector says of one picture; None where it could not be read.

    Attributes:
        probability_real: calibrated on the validation images of the training sources.
        logit: what it was computed from, which does not saturate; above 0 leans to real.
        verdict: by the thresholds set on validation reals, not by probability 0.5.
        reason: why it is unsure, or "".
        width: of the picture as shown, in pixels.
        height: of the picture as shown, in pixels.
        format: JPEG, PNG, WEBP or MPO; "" for what came as pixels.
        error: why it could not be read, or "".
    """

    probability_real: float | None
    logit: float | None
    verdict: Verdict | None
    reason: str
    width: int | None
    height: int | None
    format: str
    error: str


class Scored(NamedTuple):
    """A prediction, and the square that it is of.

    Attributes:
        prediction: it.
        square: ``(S, S, 3)`` uint8, the picture as the detector sees it; None if it was not read.
    """

    prediction: Prediction
    square: NDArray[np.uint8] | None


class _Prepared(NamedTuple):
    """A picture on its way to the detector: itself and its mildly changed copies, or an error."""

    rows: NDArray[np.uint8] | None
    unlike: bool
    width: int | None
    height: int | None
    format: str
    error: str


class Detector:
    """A trained detector, ready to score.

    Attributes:
        card: what its file says.
        sha256: of its weights.
        network: from ``(B, 3, S, S)`` float in [-1, 1] to ``(B,)`` logits, in evaluation mode.
    """

    def __init__(self, network: nn.Module, card: Card, sha256: str) -> None:
        self.card, self.sha256 = card, sha256
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.to(memory_format=torch.channels_last).to(self._device)
        self._bfloat16 = in_bfloat16(Precision(card.precision), self._device.type == "cuda")

    @classmethod
    def load(cls, path: str | Path) -> "Detector":
        """Read a detector; nothing in its file is run.

        Args:
            path: a run's folder or its ``detector.safetensors``.

        Raises:
            UserError: if there is none, or it is damaged, foreign or not for this version.
        """
        path = Path(path)
        if path.is_dir():
            path = path / runs.DETECTOR
        network, card, sha256 = load_model(path, DETECTORS)
        try:
            known = Card.of({name: value for name, value in card.items() if name != "format"})
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{path} cannot be scored with by this version ({error}): use the version that "
                f"wrote it ({card.get('version')}), or train it again."
            ) from error
        return cls(network, known, sha256)

    def predict(self, pictures: Picture | Iterable[Picture] | Tensor) -> list[Prediction]:
        """Score some pictures.

        Args:
            pictures: one or several, each a path, a PIL image or an ``(H, W, 3)`` uint8 array; or
                a batch ``(B, 3, H, W)`` uint8. Any size; the middle square is scored.

        Returns:
            One each, in order. A file that cannot be read has an ``error``.

        Raises:
            UserError: if arrays or tensors are not uint8 or of another shape.
        """
        if isinstance(pictures, str | Path | Image.Image):
            pictures = [pictures]
        elif isinstance(pictures, Tensor):
            if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] != 3:
                raise UserError(
                    "A batch must be (B, 3, H, W) uint8 grey levels, not "
                    f"{tuple(pictures.shape)} {pictures.dtype}."
                )
            pictures = list(pictures.permute(0, 2, 3, 1).cpu().numpy())
        elif isinstance(pictures, np.ndarray) and pictures.ndim == 3:
            pictures = [pictures]
        return list(self.stream(pictures))

    def stream(self, pictures: Iterable[Picture]) -> Iterator[Prediction]:
        """Score any number of pictures in constant memory, in order, on all cores."""
        return (prediction for prediction, _ in self.stream_with_squares(pictures))

    def stream_with_squares(self, pictures: Iterable[Picture]) -> Iterator[Scored]:
        """Score as `stream` does, and give what was scored beside each prediction."""
        # A batch is decoded and scored by one thread: threads that share a network's sums wait for
        # each other, and for those that decode, a quarter of the time.
        with torch_threads(1):
            for batch in in_order(self._score, _batches(pictures), _BATCHES_AT_ONCE):
                yield from batch

    def logits(self, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Score prepared images, in the numbers that the detector was tested in.

        Args:
            rows: ``(n, S, S, 3)`` uint8.

        Returns:
            ``(n,)``; above 0 leans to real.
        """
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16),
        ):
            logits: Tensor = self.network(self._scaled(rows))
        return logits.float().cpu().numpy()

    def evidence(self, square: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Where a prepared image looks real, above 0, and where generated, below.

        Args:
            square: ``(S, S, 3)`` uint8.

        Returns:
            ``(h, w)``, coarse; see `forensics.evaluation.evidence.grad_cam`.
        """
        (evidence,) = grad_cam(self._explained, self._scaled(square[None].copy()))
        return np.asarray(evidence)

    @cached_property
    def _explained(self) -> nn.Module:
        """A copy: Captum hooks into a network, and other threads score with ours meanwhile."""
        return copy.deepcopy(self.network)

    def _scaled(self, rows: NDArray[np.uint8]) -> Tensor:
        images = torch.from_numpy(rows).to(self._device).permute(0, 3, 1, 2)
        return images.float().div_(127.5).sub_(1)

    def probability_real(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Calibrated probabilities of logits."""
        return sigmoid(logits.astype(np.float64) / self.card.temperature)

    def _prepare(self, picture: Picture) -> _Prepared:
        if isinstance(picture, str | Path):
            path = Path(picture)
            try:
                if not path.is_file():  # a pipe would be waited for
                    return _unread("no such file")
                image, _, format_ = decode(path, 1)
            except RejectedImage as error:
                return _unread(str(error))
            except OSError as error:
                return _unread(error.strerror or str(error))
        else:
            format_ = ""
            if isinstance(picture, Image.Image):
                image = to_rgb(picture)
            elif picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
                image = Image.fromarray(np.ascontiguousarray(picture))
            else:
                raise UserError(
                    f"An array must be (H, W, 3) uint8 grey levels, not {picture.shape} "
                    f"{picture.dtype}."
                )
        filter_, match = ResizeFilter(self.card.resize_filter), Match(self.card.match)
        square = to_square(image, self.card.image_size, filter_)
        changed = recompressed(square, MILD_JPEG_QUALITY), zoomed(square, MILD_ZOOM_PIXELS)
        rows = np.stack([matched(one, match, filter_) for one in (square, *changed)])
        distance = nearest(profiles(rows[:1]), self.card.spectra)[0]
        return _Prepared(rows, bool(distance > self.card.spectrum_limit), *image.size, format_, "")

    def _score(self, pictures: Sequence[Picture]) -> list[Scored]:
        """Decode and score a batch."""
        batch = [self._prepare(picture) for picture in pictures]
        read = [one.rows for one in batch if one.rows is not None]
        scores = self.logits(np.concatenate(read)).reshape(-1, 3) if read else np.empty((0, 3))
        if not np.isfinite(scores).all():
            raise UserError(
                "The detector gives a score that is no finite number: train it again with a "
                "lower learning_rate."
            )
        scored = []
        number = 0
        for one in batch:
            if one.rows is None:
                unread = Prediction(None, None, None, "", None, None, "", one.error)
                scored.append(Scored(unread, None))
                continue
            logits = scores[number]
            number += 1
            verdict, reason = self._verdict(one, logits)
            prediction = Prediction(
                float(self.probability_real(logits[:1])[0]),
                float(logits[0]),
                verdict,
                reason,
                one.width,
                one.height,
                one.format,
                "",
            )
            scored.append(Scored(prediction, one.rows[0]))
        return scored

    def _verdict(self, one: _Prepared, logits: NDArray[np.floating]) -> tuple[Verdict, str]:
        """The verdict, by the logits of a picture and of its mildly changed copies."""
        itself, compressed, rescaled = (self.leaning(logit) for logit in logits.tolist())
        size = self.card.image_size
        reasons = {
            "score between the thresholds of 1 % and 5 % false alarms": itself is Verdict.unsure,
            f"verdict changes when saved as JPEG of quality {MILD_JPEG_QUALITY}": (
                compressed is not itself
            ),
            "verdict changes when rescaled by half a pixel": rescaled is not itself,
            f"smaller than the {size} pixels the detector looks at": (
                one.width is not None
                and one.height is not None
                and min(one.width, one.height) < size
            ),
            "spectrum unlike those of the training images": one.unlike,
        }
        reason = "; ".join(text for text, holds in reasons.items() if holds)
        return (Verdict.unsure if reason else itself), reason

    def leaning(self, logit: float) -> Verdict:
        """The verdict by the thresholds alone, unsure between them."""
        thresholds = self.card.thresholds
        if logit >= thresholds[CERTAIN_REAL]:
            return Verdict.real
        return Verdict.generated if logit < thresholds[CERTAIN_GENERATED] else Verdict.unsure


def _batches(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    rest = iter(pictures)
    while batch := list(islice(rest, BATCH_SIZE)):
        yield batch


def limits(card: Card) -> list[str]:
    """What a score of a detector does not say, in sentences."""
    return [
        "Thresholds, probabilities and false-alarm rates hold for pictures like the validation "
        f"images of the sources it was trained on ({', '.join([*card.real, *card.trained_on])}). "
        "Photographs of other cameras, croppings or codecs can be called generated far more "
        "often: measure that with evaluate.py before relying on it.",
        "Generators that were not trained on may go unnoticed altogether.",
        f"Pictures smaller than {card.image_size} pixels, and those with spectra unlike the "
        "training images', are outside of what it was tested on; forensics predict calls them "
        "unsure.",
    ]


def _unread(error: str) -> _Prepared:
    return _Prepared(None, False, None, None, "", error)
