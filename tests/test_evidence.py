"""Heat maps, against cases worked by hand and by autograd alone."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from conftest import NETWORK, SIZE, detector_card
from torch import Tensor, nn

from forensics.detectors import dcgan_discriminator
from forensics.evaluation.evidence import grad_cam
from forensics.scoring import Detector

pytest.importorskip("captum")


class Tiny(nn.Module):
    """Two feature maps, red and minus green, and one linear unit over all their places."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 2, 1, bias=False)
        self.score = nn.Linear(8, 1)
        with torch.no_grad():
            self.maps.weight[:] = torch.tensor([[1.0, 0, 0], [0, -1, 0]])[:, :, None, None]
            # Of the red map's places, then of the green's; their means are 2 and 0.5.
            self.score.weight[:] = torch.tensor([[1.0, 2, 3, 2, 0, 0, 0, 2]])

    @property
    def last_feature_layer(self) -> nn.Module:
        return self.maps

    def forward(self, images: Tensor) -> Tensor:
        return self.score(self.maps(images).flatten(1)).squeeze(1)  # type: ignore[no-any-return]


def test_each_map_is_weighed_by_its_mean_gradient() -> None:
    red = torch.tensor([[0.5, -0.5], [0.25, 1.0]])
    green = torch.tensor([[1.0, 0.0], [-1.0, 0.5]])
    image = torch.stack([red, green, torch.rand(2, 2)])
    # 2 red + 0.5 (- green), place by place.
    by_hand = [[1.0 - 0.5, -1.0], [0.5 + 0.5, 2.0 - 0.25]]
    both = grad_cam(Tiny(), torch.stack([image, torch.zeros(3, 2, 2)]))
    assert both == pytest.approx(np.array([by_hand, np.zeros((2, 2))]), abs=1e-6)


def test_the_papers_detector_is_weighed_at_its_last_activated_convolution() -> None:
    torch.manual_seed(0)
    network = cast(dcgan_discriminator.Detector, NETWORK.build(SIZE).eval())
    square = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    images = torch.from_numpy(square).permute(2, 0, 1)[None] / 127.5 - 1
    maps = network.features(images).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network.score(maps.flatten(1)).sum(), maps)
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(1)[0].detach().numpy()
    assert expected.shape == (SIZE // 4, SIZE // 4)
    got = Detector(network, detector_card(), "").evidence(square)
    assert got == pytest.approx(expected, abs=1e-6)
