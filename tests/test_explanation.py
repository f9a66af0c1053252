"""Heat maps, against cases worked by hand and by autograd alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NETWORK, SIZE, detector_card
from torch import Tensor, nn

from forensics.detectors import Detector
from forensics.errors import UserError
from forensics.scoring import Predictor
from forensics.scoring.explanation import check_explainable, grad_cam
from forensics.scoring.predict import predict


class Tiny(Detector):
    """Two feature maps, red and minus green, and one linear unit over all their places."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 2, 1, bias=False)
        self.score = nn.Linear(8, 1)
        with torch.no_grad():
            self.maps.weight[:] = torch.tensor([[1.0, 0, 0], [0, -1, 0]])[:, :, None, None]
            # Of the red map's places, then of the green's; their means are 2 and 0.5.
            self.score.weight[:] = torch.tensor([[1.0, 2, 3, 2, 0, 0, 0, 2]])

    def saliency_layer(self) -> nn.Module:
        return self.maps

    def forward(self, images: Tensor) -> Tensor:
        return self.score(self.maps(images).flatten(1)).squeeze(1)  # type: ignore[no-any-return]


class Mean(Detector):
    """Has no feature maps."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3))


def test_grad_cam_weighs_each_map_by_its_mean_gradient() -> None:
    pytest.importorskip("captum")
    red = torch.tensor([[0.5, -0.5], [0.25, 1.0]])
    green = torch.tensor([[1.0, 0.0], [-1.0, 0.5]])
    image = torch.stack([red, green, torch.rand(2, 2)])
    # 2 red + 0.5 (- green), place by place.
    by_hand = [[1.0 - 0.5, -1.0], [0.5 + 0.5, 2.0 - 0.25]]
    both = grad_cam(Tiny(), torch.stack([image, torch.zeros(3, 2, 2)]))
    assert both == pytest.approx(np.array([by_hand, np.zeros((2, 2))]), abs=1e-6)


def test_maps_of_crops_are_side_by_side() -> None:
    pytest.importorskip("captum")
    card = detector_card(image_size=2, view="crop", crop_size=4, guard=None)
    predictor = Predictor(Tiny(), card, "0" * 64)
    square = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    # 2 red + 0.5 (- green), as for one crop.
    expected = 2.0 * square[..., 0] - 0.5 * square[..., 1]
    assert predictor.evidence(square) == pytest.approx(expected)


def test_grad_cam_of_the_papers_detector_is_at_its_last_activated_convolution() -> None:
    pytest.importorskip("captum")
    torch.manual_seed(0)
    detector = NETWORK.build(SIZE, pretrained=False).eval()
    square = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    images = torch.from_numpy(square).permute(2, 0, 1)[None].float()
    maps = detector.features(images).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(detector.score(maps.flatten(1)).sum(), maps)
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(1)[0].detach().numpy()
    assert expected.shape == (SIZE // 4, SIZE // 4)
    got = Predictor(detector, detector_card(), "").evidence(square)
    assert got == pytest.approx(expected, abs=1e-6)


def is_there(name: str) -> object:
    return object()


def is_missing(name: str) -> None:
    return None


@pytest.mark.parametrize(
    ("detector", "find"), [(Mean(), is_there), (Mean(), is_missing), (Tiny(), is_missing)]
)
def test_explanations_that_cannot_be_made_are_refused_before_anything_is_scored(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    detector: Detector,
    find: Callable[[str], object],
) -> None:
    monkeypatch.setattr("forensics.scoring.explanation.find_spec", find)
    predictor = Predictor(detector, detector_card(), "")
    table, folder = tmp_path / "a.csv", tmp_path / "why"
    with pytest.raises(UserError) as raised:
        predict(predictor, ["missing.png"], table, resume=False, explain=folder)
    assert raised.value.key == "--explain"
    assert not list(tmp_path.iterdir())
    predict(predictor, ["missing.png"], table, resume=False)
    assert list(tmp_path.iterdir()) == [table]


def test_detector_with_feature_maps_may_be_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forensics.scoring.explanation.find_spec", is_there)
    check_explainable(Tiny())
