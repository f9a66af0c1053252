"""MesoNet against its description: counts, layers, loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ADAM
from scipy.special import expit
from torch import Tensor, nn

from forensics.detectors import DetectorSettings
from forensics.detectors.meso import Inception, Meso, Meso4Settings, MesoInception4Settings
from forensics.errors import UserError
from forensics.preprocess.base import Draws

BOTH: list[DetectorSettings] = [Meso4Settings(**ADAM), MesoInception4Settings(**ADAM)]


def images(count: int, size: int) -> Tensor:
    """Noise in [0, 255]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 255


@pytest.mark.parametrize(("settings", "published"), [(BOTH[0], 27_977), (BOTH[1], 28_615)])
def test_parameter_count_at_256_px_is_the_published_one(
    settings: DetectorSettings, published: int
) -> None:
    network = settings.build(256, pretrained=False)
    assert sum(one.numel() for one in network.parameters()) == published


def test_each_convolution_has_a_relu_then_a_norm_and_a_pooling() -> None:
    network = Meso4Settings(**ADAM).build(128, pretrained=False)
    block = [nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.MaxPool2d]
    assert [type(layer) for layer in network.convolutions] == block * 4
    kernels = [one.kernel_size for one in network.modules() if isinstance(one, nn.Conv2d)]
    assert kernels == [(3, 3), (5, 5), (5, 5), (5, 5)]
    pools = [one.kernel_size for one in network.modules() if isinstance(one, nn.MaxPool2d)]
    assert pools == [2, 2, 2, 4]
    dense = [nn.Flatten, nn.Dropout, nn.Linear, nn.LeakyReLU, nn.Dropout]
    assert [type(layer) for layer in network.dense] == dense


def test_inception_is_its_four_branches_with_a_relu_after_each_convolution() -> None:
    torch.manual_seed(0)
    module, maps = Inception(3, 1, 4, 4, 2), torch.randn(2, 3, 12, 12)
    weights = list(module.parameters())
    shapes = [tuple(value.shape) for value in weights[::2]]
    assert shapes == [
        (1, 3, 1, 1),
        *((4, 3, 1, 1), (4, 4, 3, 3)),
        *((4, 3, 1, 1), (4, 4, 3, 3)),
        *((2, 3, 1, 1), (2, 2, 3, 3)),
    ]
    expected = [nn.functional.conv2d(maps, weights[0], weights[1]).relu()]
    for branch, dilation in enumerate((1, 2, 3)):
        first, first_bias, second, second_bias = weights[2 + 4 * branch : 6 + 4 * branch]
        inner = nn.functional.conv2d(maps, first, first_bias).relu()
        padded = nn.functional.pad(inner, [dilation] * 4)
        outer = nn.functional.conv2d(padded, second, second_bias, dilation=dilation)
        expected.append(outer.relu())
    torch.testing.assert_close(module(maps), torch.cat(expected, 1))


@pytest.mark.parametrize("settings", BOTH)
@pytest.mark.parametrize(("size", "side"), [(256, 8), (128, 4), (33, 2), (2, 1)])
def test_images_of_any_size_are_scored(settings: DetectorSettings, size: int, side: int) -> None:
    network = settings.build(size, pretrained=False).eval()
    assert isinstance(network, Meso)
    assert network.convolutions(network.front_end(images(1, size))).shape == (1, 16, side, side)
    assert network(images(2, size)).shape == (2,)


@pytest.mark.parametrize("settings", BOTH)
def test_image_without_neighbourhoods_is_refused(settings: DetectorSettings) -> None:
    with pytest.raises(UserError) as raised:
        settings.build(1, pretrained=False)
    assert raised.value.key == "dataset.image_size"


def test_loss_is_the_mean_squared_error_of_the_probability() -> None:
    torch.manual_seed(0)
    network = BOTH[0].build(16, pretrained=False).eval()
    labels = torch.tensor([1.0, 0, 1, 0, 0])
    loss, scores, _ = network.step(images(5, 16), labels, Draws.at(0, 0, 0))
    assert loss is not None
    assert scores is not None
    expected = np.mean((expit(scores.detach().double().numpy()) - labels.numpy()) ** 2)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert network.is_probabilistic
