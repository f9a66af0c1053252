"""Scoring of prepared images, shared by validation, test, evaluation, export and predict."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forensics.compute import Precision, in_bfloat16, in_order, torch_threads
from forensics.detectors import Detector
from forensics.progress import Progress

Images = NDArray[np.uint8]
T = TypeVar("T")
R = TypeVar("R")

BATCH_SIZE = {"cpu": 32, "cuda": 256}
"""Batch size by type of device; constant, because sums over another number of images may round
differently."""

_BATCHES_AT_ONCE = 32


class Scorer:
    """A detector in evaluation mode that scores batches of a fixed size in a fixed precision.

    A score depends on image, detector, precision and device, not on the other images of its batch.
    It is the mean over `Detector.crops`.

    Args:
        detector: the detector; moved to the device.
        precision: numeric precision, by the same rule as in training.
        device: the device to compute on; by default a GPU if there is one.
        image_size: height and width of the images that the detector was built for; None if those
            to score are of this size.

    Attributes:
        detector: the detector, in evaluation mode, on the device.
        device: the device that computes.
        batch_size: images in a batch.
    """

    def __init__(
        self,
        detector: Detector,
        precision: Precision,
        device: torch.device | None = None,
        image_size: int | None = None,
    ) -> None:
        self._image_size = image_size
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.detector = detector.eval().to(memory_format=torch.channels_last).to(self.device)
        self.batch_size = BATCH_SIZE[self.device.type]
        self._bfloat16 = in_bfloat16(precision, self.device.type == "cuda")

    def scores(
        self, count: int, image: Callable[[int], Images], *, label: str
    ) -> NDArray[np.float32]:
        """Score any number of images on all cores, in constant memory.

        Args:
            count: number of images.
            image: returns image number i, ``(S, S, 3)`` uint8; called from several threads.
            label: label of the progress bar.

        Returns:
            ``(count,)`` scores, higher for real; may be non-finite.
        """

        def score(numbers: range) -> NDArray[np.float32]:
            return self.score_rows(np.stack([image(number) for number in numbers]))

        starts = range(0, count, self.batch_size)
        batches = [range(start, min(start + self.batch_size, count)) for start in starts]
        found = [np.empty(0, np.float32)]
        with Progress(label, count) as progress:
            for scores in self.map_batches(score, batches):
                found.append(scores)
                progress.advance(len(scores))
        return np.concatenate(found)

    def map_batches(self, work: Callable[[T], R], batches: Iterable[T]) -> Iterator[R]:
        """Map over batches, results in order; each batch is computed by one thread.

        Threads that share the work of a batch would spend a quarter of the time waiting for each
        other and for decoding threads.
        """
        with torch_threads(1):
            yield from in_order(work, batches, _BATCHES_AT_ONCE)

    def score_rows(self, rows: Images, batch_size: int | None = None) -> NDArray[np.float32]:
        """Score images.

        Args:
            rows: ``(n, S, S, 3)`` uint8.
            batch_size: images in a batch, the last one padded; by default that of the scorer.
                Scores of one image in batches of two sizes can differ in their last bits.

        Returns:
            ``(n,)`` scores, higher for real; may be non-finite.
        """
        scores = self._compute(self.detector, rows, batch_size or self.batch_size)
        assert scores is not None
        return scores

    def features(self, rows: Images) -> NDArray[np.float32] | None:
        """Penultimate-layer features of ``(n, S, S, 3)`` uint8 images: ``(n, F)``, or None."""
        features = self._compute(self.detector.features, rows, self.batch_size)
        return None if features is None else features.reshape(len(rows), -1)

    def crops(self, rows: Images) -> list[Tensor]:
        """Convert rows ``(n, S, S, 3)`` uint8 to a detector's inputs, ``(n, 3, s, s)`` float."""
        images = torch.from_numpy(rows).to(self.device).permute(0, 3, 1, 2).float()
        return self.detector.crops(images, self._image_size or images.shape[-1])

    def _compute(
        self, function: Callable[[Tensor], Tensor | None], rows: Images, batch_size: int
    ) -> NDArray[np.float32] | None:
        found = []
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            full = np.zeros((batch_size, *rows.shape[1:]), np.uint8)
            full[: len(batch)] = batch
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16),
            ):
                computed = [function(crops) for crops in self.crops(full)]
            of_crops = [values.float() for values in computed if values is not None]
            if not of_crops:
                return None
            found.append(torch.stack(of_crops).mean(dim=0)[: len(batch)].cpu().numpy())
        return np.concatenate(found) if found else np.empty(0, np.float32)
