"""Networks on constrained convolutions against their descriptions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import ADAM
from torch import Tensor, nn

from forensics.detectors.bayar import Bayar, Bayar2016Settings, MislNetSettings
from forensics.detectors.front_ends import ConstrainedConvolution, FrontEnd
from forensics.errors import UserError

CONSTRAINED: dict[str, Any] = ADAM | {"front_end": FrontEnd.constrained}
OF_2016 = Bayar2016Settings(channels=[64, 48], dense=4096, **CONSTRAINED)
MISLNET = MislNetSettings(channels=[96, 64, 64, 128], dense=200, **CONSTRAINED)
SMALL_2016 = Bayar2016Settings(channels=[2, 3], dense=4, **CONSTRAINED)
SMALL_MISLNET = MislNetSettings(channels=[2, 2, 2, 3], dense=4, **CONSTRAINED)


def sides(network: Bayar, size: int) -> list[int]:
    """Heights of the maps after each convolution and pooling."""
    found: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, out: found.append(out.shape[2]))
        for layer in network.convolutions
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
    ]
    assert network.eval()(torch.zeros(1, 3, size, size)).shape == (1,)
    for hook in hooks:
        hook.remove()
    return found


def count(network: nn.Module) -> int:
    return sum(one.numel() for one in network.parameters())


def test_maps_of_2016_at_227_px_are_those_without_padding() -> None:
    network = SMALL_2016.build(227, pretrained=False)
    # 227 - 4 = 223, then (223 - 7) / 2 + 1 = 109, (109 - 3) / 2 + 1 = 54, 54 - 4 = 50, 24.
    assert sides(network, 227) == [109, 54, 50, 24]


def test_maps_of_mislnet_at_256_px_are_the_published_ones() -> None:
    network = SMALL_MISLNET.build(256, pretrained=False)
    # 256 - 4 = 252; the published linear layer has 6 x 6 x 128 inputs.
    assert sides(network, 256) == [123, 61, 61, 30, 30, 14, 14, 6]


def test_parameter_counts() -> None:
    with torch.device("meta"):
        of_2016 = OF_2016.build(128, pretrained=False)
        mislnet = MISLNET.build(256, pretrained=False)
    # At 128 px: 124, 59, 29, 25, 12.
    assert count(of_2016) == (
        (12 * 25)
        + (49 * 12 * 64 + 64)
        + (25 * 64 * 48 + 48)
        + (12 * 12 * 48 * 4096 + 4096)
        + (4096 * 4096 + 4096)
        + (4096 + 1)
    )
    norms = 2 * (96 + 64 + 64 + 128)
    assert count(mislnet) == norms + (
        (3 * 25)
        + (49 * 3 * 96 + 96)
        + (25 * 96 * 64 + 64)
        + (25 * 64 * 64 + 64)
        + (64 * 128 + 128)
        + (6 * 6 * 128 * 200 + 200)
        + (200 * 200 + 200)
        + (200 + 1)
    )


@pytest.mark.parametrize(("settings", "filters"), [(SMALL_2016, 12), (SMALL_MISLNET, 3)])
def test_front_end_has_the_papers_number_of_filters(
    settings: Bayar2016Settings | MislNetSettings, filters: int
) -> None:
    front_end = settings.build(80, pretrained=False).front_end
    assert isinstance(front_end, ConstrainedConvolution)
    assert front_end.weight.shape == (filters, 1, 5, 5)


def test_border_of_mirrored_pixels_is_cut_off() -> None:
    torch.manual_seed(0)
    network = SMALL_MISLNET.build(71, pretrained=False).eval()
    seen: list[Tensor] = []
    network.convolutions.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = torch.rand(2, 3, 71, 71) * 255
    network(images)
    weights = next(network.front_end.parameters())
    expected = nn.functional.conv2d(images.mean(1, keepdim=True), weights) / 32
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize(("settings", "least"), [(SMALL_2016, 39), (SMALL_MISLNET, 71)])
def test_images_of_which_nothing_would_be_left_are_refused(
    settings: Bayar2016Settings | MislNetSettings, least: int
) -> None:
    assert sides(settings.build(least, pretrained=False), least)[-1] == 1
    with pytest.raises(UserError) as raised:
        settings.build(least - 1, pretrained=False)
    assert raised.value.key == "dataset.image_size"


@pytest.mark.parametrize(
    ("kind", "channels", "dense", "key"),
    [
        (Bayar2016Settings, [2], 4, "model.channels"),
        (Bayar2016Settings, [2, 2], 0, "model.dense"),
        (MislNetSettings, [2, 2, 2, 0], 4, "model.channels"),
        (MislNetSettings, [2, 2], 4, "model.channels"),
    ],
)
def test_setting_out_of_range_is_refused(
    kind: Any,  # noqa: ANN401
    channels: list[int],
    dense: int,
    key: str,
) -> None:
    with pytest.raises(UserError) as raised:
        kind(channels=channels, dense=dense, **CONSTRAINED)
    assert raised.value.key == key
