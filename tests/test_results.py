"""From prepared images to scores to what is reported of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SIZE
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from forensics.compute import Precision
from forensics.data.datamodule import FaceData
from forensics.data.settings import DatasetSettings
from forensics.detectors import Detector
from forensics.errors import UserError
from forensics.evaluation.calibration import fit_platt
from forensics.evaluation.results import (
    calibrate,
    largest_changes,
    score_part,
    score_perturbed,
)
from forensics.images.geometry import Match, ResizeFilter
from forensics.preprocess.handling import Untouched
from forensics.scoring.scorer import Scorer


class MeanRed(Detector):
    """Scores an image by its mean red level: something one can work out by hand."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0].mean(dim=(1, 2))


class NoNumber(Detector):
    """Gives no number for images that begin with a dark pixel."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.where(images[:, 0, 0, 0] < 128, torch.nan, 0.0)


@pytest.fixture
def data(faces: Callable[..., DatasetSettings], tmp_path: Path) -> FaceData:
    settings = faces(match=Match.jpeg)
    opened = FaceData(settings, Untouched(), 8, 0, tmp_path / "cache")
    opened.setup()
    return opened


def files(data: FaceData) -> list[Path]:
    """Of the tested images, in order."""
    owners = [data.sources[position] for position in data.split.test.source]
    rows = zip(owners, data.split.test.row, strict=True)
    return [data.settings.folder(source.name) / source.paths[row] for source, row in rows]


def test_scores_are_of_the_files_in_the_order_of_the_part(data: FaceData, tmp_path: Path) -> None:
    scores = score_part(Scorer(MeanRed(), Precision.fp32), data.sources, data.split.test, "test")
    assert len(scores) == 30
    for path, score in zip(files(data), scores, strict=True):
        Image.open(path).save(tmp_path / "again.jpg", quality=75)
        expected = np.asarray(Image.open(tmp_path / "again.jpg"))[..., 0].mean()
        assert score == pytest.approx(expected, abs=1e-3)


def test_perturbed_images_are_matched_again_before_they_are_scored(
    data: FaceData, tmp_path: Path
) -> None:
    scorer, test = Scorer(MeanRed(), Precision.fp32), data.split.test
    perturbed = score_perturbed(
        scorer, data.sources, test, "test", ["noise"], 5, Match.jpeg, ResizeFilter.lanczos
    )
    for (name, strength), scores in perturbed.items():
        assert name == "noise"
        for path, row, score in zip(files(data), test.row, scores, strict=True):
            Image.open(path).save(tmp_path / "first.jpg", quality=75)
            noise = np.random.default_rng([5, row]).normal(0, strength, (SIZE, SIZE, 3))
            noisy = np.rint(np.asarray(Image.open(tmp_path / "first.jpg")) + noise)
            pixels = noisy.clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "again.jpg", quality=75)
            expected = np.asarray(Image.open(tmp_path / "again.jpg"))[..., 0].mean()
            assert score == pytest.approx(expected, abs=1e-3)


def test_largest_changes_are_the_files_own_recompressed_and_rescaled(
    faces: Callable[..., DatasetSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = FaceData(faces(), Untouched(), 8, 0, tmp_path / "cache")
    data.setup()
    scorer, part = Scorer(MeanRed(), Precision.fp32), data.split.test
    scores = score_part(scorer, data.sources, part, "test")
    assert largest_changes(scorer, data.sources, part, scores, Match.none) is None  # too few
    monkeypatch.setattr("forensics.evaluation.results.IMAGES_FOR_CHANGES", len(part))
    found = largest_changes(scorer, data.sources, part, scores, Match.none)
    differences: dict[str, list[float]] = {"jpeg": [], "rescale": []}
    for path in files(data):
        with Image.open(path) as image:
            image.save(tmp_path / "again.jpg", quality=90)
            box = (0.5, 0.5, SIZE - 0.5, SIZE - 0.5)
            rescaled = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box)
            red = np.asarray(image)[..., 0].mean()
        for name, changed in (("jpeg", Image.open(tmp_path / "again.jpg")), ("rescale", rescaled)):
            differences[name].append(abs(np.asarray(changed)[..., 0].mean() - red))
    expected = {name: max(values) for name, values in differences.items()}
    assert found == pytest.approx(expected, abs=1e-3)
    assert largest_changes(scorer, data.sources, part, scores, Match.jpeg) is None


def test_images_without_a_number_are_named(data: FaceData) -> None:
    scorer = Scorer(NoNumber(), Precision.fp32)
    rows = [data.sources[s].rows[r] for s, r in zip(
        data.split.test.source, data.split.test.row, strict=True)]  # fmt: skip
    first = next(i for i, row in enumerate(rows) if row[0, 0, 0] < 128)
    path = files(data)[first]
    with pytest.raises(UserError, match=f"{path.parent.name}/{path.name}") as raised:
        score_part(scorer, data.sources, data.split.test, "test")
    assert raised.value.key == "model.learning_rate"


class TestPlatt:
    @pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (500.0, 3e4), (1e-3, -2.0)])
    def test_it_is_a_logistic_regression_on_platts_targets(
        self, scale: float, shift: float
    ) -> None:
        draws = np.random.default_rng(0)
        real, generated = draws.normal(1, 1, 80), draws.normal(-1, 1, 60)
        offset, temperature = fit_platt(scale * real + shift, scale * generated + shift)
        # A target t is t of an image that is real and 1 - t of one that is not.
        targets = np.r_[np.full(80, 81 / 82), np.full(60, 1 / 62)]
        scores = np.tile(np.r_[real, generated], 2)[:, None]
        model = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000)
        model.fit(scores, np.repeat([1, 0], 140), np.r_[targets, 1 - targets])
        slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
        assert temperature == pytest.approx(scale / slope, rel=1e-3)
        assert offset == pytest.approx(
            shift - scale * intercept / slope, rel=1e-3, abs=scale * 1e-3
        )

    def test_scores_that_tell_nothing_get_probabilities_of_a_half(self) -> None:
        scores = np.random.default_rng(0).normal(0, 1, 1000)
        offset, temperature = fit_platt(scores, scores)
        probabilities = 1 / (1 + np.exp(-(scores - offset) / temperature))
        assert probabilities == pytest.approx(np.full(1000, 0.5), abs=0.01)


class TestCalibrate:
    def test_without_generated_images_there_are_thresholds_alone(self) -> None:
        calibration = calibrate(np.arange(100.0), np.empty(0), centred=False)
        assert calibration.thresholds == {"source_0.05": 5.0, "source_0.01": 1.0}
        assert calibration.offset is calibration.temperature is None
        assert calibration.probability_real(50.0) is None

    def test_the_papers_threshold_is_where_the_probability_is_a_half(self) -> None:
        draws = np.random.default_rng(0)
        scores = draws.normal(7, 1, 100), draws.normal(3, 1, 100)
        platt, logits = (calibrate(*scores, centred=centred) for centred in (False, True))
        assert platt.probability_real(platt.thresholds["0.5"]) == pytest.approx(0.5)
        assert 4 < platt.thresholds["0.5"] < 6
        assert (logits.thresholds["0.5"], logits.offset) == (0.0, 0.0)
