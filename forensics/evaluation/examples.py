"""Single images of a test: the most wrongly judged, and where a detector's features put some."""

from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor, nn

from forensics.data.datamodule import FaceData
from forensics.task import Scores

MISTAKES = 8
"""Images of each source on its sheet."""

SHOWN = 100
"""Images of each source in feature space."""

COMPONENTS = 50
_BLOCK = 64


class Featured(Protocol):
    """What every detector has besides its scores."""

    def features(self, images: Tensor) -> Tensor:
        """What the last unit decides by, ``(B, ...)``."""
        ...


def mistakes(data: FaceData, test: Scores) -> dict[str, NDArray[np.uint8]]:
    """The most wrongly judged tested images of each source, worst first, side by side.

    Returns:
        By source ``(S, 8 S, 3)``, narrower for fewer images.
    """
    part = data.split.test
    sheets = {}
    for position, source in enumerate(data.sources):
        of_source = np.flatnonzero(part.source[test.positions] == position)
        logits = test.logits[of_source]
        wrongness = -logits if position < len(data.settings.real) else logits
        worst = of_source[np.argsort(-wrongness, kind="stable")[:MISTAKES]]
        rows = part.row[test.positions[worst]]
        sheets[source.name] = np.concatenate([source.rows[row] for row in rows], axis=1)
    return sheets


def feature_space(
    data: FaceData, detector: nn.Module, seed: int
) -> tuple[NDArray[np.uint8], dict[str, list[Any]]]:
    """Where a detector puts some tested images before its last unit decides.

    Args:
        data: whose tested images, the first ones of each source.
        detector: one of `forensics.detectors`.
        seed: of the randomised decomposition.

    Returns:
        The images, ``(n, S, S, 3)``, and columns source, path and features: the strongest
        principal components of what the detector's ``features`` gives, at most 50.

    Source: arXiv 1902.11153, figure 3.
    """
    test = data.split.test
    columns: dict[str, list[Any]] = {"source": [], "path": []}
    images = []
    for position, source in enumerate(data.sources):
        for row in test.row[test.source == position][:SHOWN]:
            columns["source"].append(source.name)
            columns["path"].append(source.paths[row])
            images.append(source.rows[row])
    shown = np.stack(images)
    device = next(detector.parameters()).device
    blocks = []
    with torch.inference_mode():
        for start in range(0, len(shown), _BLOCK):
            batch = torch.from_numpy(shown[start : start + _BLOCK]).permute(0, 3, 1, 2)
            features = cast(Featured, detector).features(batch.to(device).float() / 127.5 - 1)
            blocks.append(features.flatten(1).float().cpu().numpy())
    matrix = np.concatenate(blocks)
    pca = PCA(min(COMPONENTS, *matrix.shape), svd_solver="randomized", random_state=seed)
    return shown, columns | {"features": list(pca.fit_transform(matrix))}
