"""The Gaussian-neuron network against its description."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ADAM
from torch import nn

from forensics.detectors.front_ends import FrontEnd
from forensics.detectors.gncnn import Gaussian, Gncnn, GncnnSettings
from forensics.errors import UserError

PAPER = GncnnSettings(channels=16, front_end=FrontEnd.kv, **ADAM)


def sides(network: Gncnn, size: int) -> list[int]:
    """Heights of the maps after each pooling."""
    maps, found = torch.zeros(1, 3, size, size), []
    for layer in network.convolutions:
        maps = layer(maps)
        if isinstance(layer, nn.AvgPool2d):
            found.append(maps.shape[2])
    assert network.eval()(torch.zeros(2, 3, size, size)).shape == (2,)
    return found


def test_maps_at_256_px_are_the_papers() -> None:
    network = PAPER.build(256, pretrained=False)
    assert sides(network, 256) == [125, 61, 29, 13, 4]
    assert all(one.padding == (0, 0) for one in network.modules() if isinstance(one, nn.Conv2d))


def test_maps_at_128_px_end_as_the_papers() -> None:
    assert sides(PAPER.build(128, pretrained=False), 128) == [64, 32, 16, 8, 4]


@pytest.mark.parametrize(("size", "last"), [(159, 1), (158, 5), (33, 2), (2, 1)])
def test_padding_is_where_nothing_would_be_left_without_it(size: int, last: int) -> None:
    assert sides(PAPER.build(size, pretrained=False), size)[-1] == last


def test_parameter_count() -> None:
    network = PAPER.build(256, pretrained=False)
    # Convolutions with bias: kernels 5, 3, 3, 3, 5 of 16 maps; 256 inputs, 128 and 128 units.
    expected = 25 * 3 * 16 + 3 * 9 * 16 * 16 + 25 * 16 * 16 + 5 * 16
    expected += 256 * 128 + 128 + 128 * 128 + 128 + 128 + 1
    assert sum(one.numel() for one in network.parameters()) == expected


def test_activation_is_a_gaussian() -> None:
    values = np.linspace(-3, 3, 13)
    found = Gaussian()(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(found, np.exp(-(values**2)))


def test_image_without_neighbourhoods_is_refused() -> None:
    with pytest.raises(UserError) as raised:
        PAPER.build(1, pretrained=False)
    assert raised.value.key == "dataset.image_size"
