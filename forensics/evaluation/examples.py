"""Example images of a test: the most confident errors, and features of some test images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from forensics.data.datamodule import FaceData
from forensics.scoring.scorer import Scorer

MISTAKES = 8
"""Number of images of each source on its sheet."""

SHOWN = 100
"""Number of images of each source in feature space."""

COMPONENTS = 50


def mistakes(data: FaceData, scores: NDArray[np.floating]) -> dict[str, NDArray[np.uint8]]:
    """The most confident errors among the test images of each source, worst first, side by side.

    Args:
        data: the data module whose test images were scored.
        scores: scores of the test images, in their order.

    Returns:
        ``(S, 8 S, 3)`` by source, narrower for fewer images.
    """
    part = data.split.test
    sheets = {}
    for position, source in enumerate(data.sources):
        of_source = np.flatnonzero(part.source == position)
        if not len(of_source):
            continue
        wrongness = scores[of_source] * (-1 if position < len(data.settings.all_real) else 1)
        worst = of_source[np.argsort(-wrongness, kind="stable")[:MISTAKES]]
        sheets[source.name] = np.concatenate([source.rows[row] for row in part.row[worst]], axis=1)
    return sheets


def feature_space(
    data: FaceData, scorer: Scorer, seed: int
) -> tuple[NDArray[np.uint8], dict[str, list[Any]]] | None:
    """Penultimate-layer features of some test images.

    Args:
        data: the data module; the first test images of each source are used.
        scorer: the detector.
        seed: seed of the randomised decomposition.

    Returns:
        The images, ``(n, S, S, 3)``, and columns source, path and features: the strongest
        principal components, at most 50. None for a detector without features.

    Source: arXiv 1902.11153, figure 3.
    """
    test = data.split.test
    columns: dict[str, list[Any]] = {"source": [], "path": []}
    images = []
    for position, source in enumerate(data.sources):
        for row in test.of_source(position)[:SHOWN]:
            columns["source"].append(source.name)
            columns["path"].append(source.paths[row])
            images.append(source.rows[row])
    shown = np.stack(images)
    matrix = scorer.features(shown)
    if matrix is None:
        return None
    pca = PCA(min(COMPONENTS, *matrix.shape), svd_solver="randomized", random_state=seed)
    return shown, columns | {"features": list(pca.fit_transform(matrix))}
