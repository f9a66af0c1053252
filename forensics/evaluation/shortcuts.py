"""Probes of shortcuts: traits that tell the classes apart without any detector."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from forensics.generators.collapse import Images, Undefined, blocks
from forensics.images.spectra import mean_log_power, radial_profile

THUMBNAIL_SIDE = 8
BORDER_OFFSETS = 8
FOLDS = 5


def probe(real: Images, generated: Images, seed: int) -> dict[str, float]:
    """Shortcut probes: AUROC of logistic models that tell generated from real by simple traits.

    Near 1, the detector can do without faces and generator alike, and learns that one trait.

    Args:
        real: ``(n, S, S, 3)`` uint8.
        generated: ``(m, S, S, 3)`` uint8.
        seed: decides the folds.

    Returns:
        Mean AUROC over five folds, 0.5 where nothing gives away, by what the model sees:
        ``thumbnail``, colours of an 8x8 thumbnail; ``border``, mean absolute difference between
        neighbouring rows or columns, for the 8 outermost pairs at each of the four sides;
        ``spectrum``, log power at each frequency.

    Raises:
        Undefined: with fewer than ten images of a set.

    Ours.
    """
    _enough(real, generated)
    return {
        name: separability(features(real), features(generated), seed)
        for name, features in PROBES.items()
    }


def separability(real: NDArray[Any], generated: NDArray[Any], seed: int) -> float:
    """Cross-validated AUROC of a logistic model that tells two sets of images apart.

    Args:
        real: ``(n, F)``.
        generated: ``(m, F)``.
        seed: decides the folds.

    Returns:
        Mean AUROC over five folds, 0.5 where all images are alike. Scores of different folds come
        from different models, so they are not pooled.

    Raises:
        Undefined: with fewer than ten images of a set.
    """
    _enough(real, generated)
    everything = np.concatenate([real, generated])
    if (everything == everything[0]).all():
        return 0.5  # as the models below would say, much later: traits of files often are alike
    scores = cross_val_score(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        everything,
        np.repeat([1, 0], [len(real), len(generated)]),
        scoring="roc_auc",
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
    )
    return float(scores.mean())


def _enough(real: NDArray[Any], generated: NDArray[Any]) -> None:
    for name, ones in (("real", real), ("generated", generated)):
        if len(ones) < 2 * FOLDS:
            raise Undefined(f"needs {2 * FOLDS} {name} images, there are {len(ones)}")


def _border_steps(images: Images) -> NDArray[np.float64]:
    """Log of the steps between rows or columns near the four borders, ``(n, 32)``."""
    steps = []
    outermost = range(min(BORDER_OFFSETS + 1, images.shape[1]))
    for axis in (1, 2):
        for flipped in (images, np.flip(images, axis)):
            strip = np.take(flipped, outermost, axis).astype(np.float64)
            across = tuple({1, 2, 3} - {axis})
            steps.append(np.abs(np.diff(strip, axis=axis)).mean(axis=across))
    return np.asarray(np.log1p(np.concatenate(steps, axis=1)))


def _spectra(images: Images) -> NDArray[np.float64]:
    return np.stack([radial_profile(mean_log_power(image[None]))[1] for image in images])


PROBES: dict[str, Callable[[Images], NDArray[Any]]] = {
    "thumbnail": lambda images: thumbnails(images, THUMBNAIL_SIDE).numpy(),
    "border": _border_steps,
    "spectrum": _spectra,
}
"""Features of the probes: images ``(n, S, S, 3)`` to ``(n, F)``."""


def thumbnails(images: Images, side: int, rows: NDArray[np.int64] | None = None) -> Tensor:
    """Means over areas of all or some images, ``(k, side * side * 3)`` in grey levels."""
    return torch.cat(
        [functional.adaptive_avg_pool2d(block, side).flatten(1) for block in blocks(images, rows)]
    )
