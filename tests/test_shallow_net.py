"""ShallowNet against its description: counts, shapes, penalty."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import ADAM
from torch import nn

from forensics.detectors.shallow_net import ShallowNetV1Settings, ShallowNetV3Settings
from forensics.errors import UserError


def v1(channels: list[int], dense: int, **changes: Any) -> ShallowNetV1Settings:  # noqa: ANN401
    return ShallowNetV1Settings(channels=channels, dense=dense, **ADAM | changes)


def v3(channels: list[int], dense: int, **changes: Any) -> ShallowNetV3Settings:  # noqa: ANN401
    return ShallowNetV3Settings(channels=channels, dense=dense, **ADAM | changes)


def count(network: nn.Module) -> int:
    return sum(one.numel() for one in network.parameters())


def test_parameter_count_of_version_1() -> None:
    channels = [96, 192, 257, 311, 396, 437]
    with torch.device("meta"):
        network = v1(channels, 3933).build(128, pretrained=False)
    expected, inputs = 0, 3
    for outputs in channels[:-1]:  # three convolutions with bias and BatchNorm
        expected += 9 * inputs * outputs + 2 * 9 * outputs**2 + 3 * 3 * outputs
        inputs = outputs
    expected += 9 * 396 * 437 + 437**2 + 2 * 3 * 437
    flat = 3 * 3 * 437
    assert flat == 3933  # the width of the linear layer is that of its input at 128 px
    expected += flat * 3933 + 3933 + 2 * 3933 + 3933 + 1
    assert count(network) == expected == 26_268_860


def test_parameter_count_of_version_3() -> None:
    with torch.device("meta"):
        network = v3([32, 64, 128, 32], 1024).build(128, pretrained=False)
    convolutions = sum(one.numel() for one in network.convolutions.parameters())
    assert convolutions == 109_344
    # 128 - 4 = 124; 62 - 2 = 60; 30 - 2 = 28
    assert count(network) == convolutions + 28 * 28 * 32 * 1024 + 1024 + 2 * 1024 + 1024 + 1


@pytest.mark.parametrize(("blocks", "least"), [(1, 3), (2, 7), (5, 63)])
def test_version_1_refuses_images_of_which_nothing_would_be_left(blocks: int, least: int) -> None:
    settings = v1([2] * (blocks + 1), 4)
    network = settings.build(least, pretrained=False).eval()
    assert network.convolutions(torch.zeros(1, 3, least, least)).shape == (1, 2, 1, 1)
    with pytest.raises(UserError, match=str(least)) as raised:
        settings.build(least - 1, pretrained=False)
    assert raised.value.key == "dataset.image_size"


@pytest.mark.parametrize(("size", "side"), [(20, 1), (23, 1), (24, 2), (128, 28)])
def test_version_3_shrinks_images_by_its_borders(size: int, side: int) -> None:
    network = v3([2, 2, 2, 3], 4).build(size, pretrained=False).eval()
    assert network.convolutions(torch.zeros(1, 3, size, size)).shape == (1, 3, side, side)
    assert network(torch.zeros(2, 3, size, size)).shape == (2,)


def test_version_3_refuses_images_of_which_nothing_would_be_left() -> None:
    with pytest.raises(UserError) as raised:
        v3([2, 2, 2, 3], 4).build(19, pretrained=False)
    assert raised.value.key == "dataset.image_size"


def test_penalty_is_on_weights_of_convolutions_alone() -> None:
    network = v1([2, 3], 4, weight_decay=0.5, learning_rate=0.1).build(8, pretrained=False)
    optimizer = network.optimizer()
    assert optimizer is not None
    decay = {
        id(weights): group["weight_decay"]
        for group in optimizer.param_groups
        for weights in group["params"]
    }
    for name, weights in network.named_parameters():
        assert decay[id(weights)] == (0.5 if weights.ndim == 4 else 0.0), name
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}


@pytest.mark.parametrize("settings", [v1([2, 3], 4), v3([2, 2, 2, 3], 4)])
def test_dropout_follows_each_convolution(
    settings: ShallowNetV1Settings | ShallowNetV3Settings,
) -> None:
    layers = list(settings.build(32, pretrained=False).convolutions)
    for number, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            following = next(one for one in layers[number + 1 :] if isinstance(one, nn.Dropout))
            assert following.p == 0.25
            assert layers.index(following) - number <= 3


@pytest.mark.parametrize(
    ("make", "channels", "dense", "key"),
    [
        (v1, [4], 4, "model.channels"),
        (v1, [4, 0], 4, "model.channels"),
        (v3, [4, 4, 4], 4, "model.channels"),
        (v3, [4, 4, 4, 4], 0, "model.dense"),
    ],
)
def test_setting_out_of_range_is_refused(
    make: Any,  # noqa: ANN401
    channels: list[int],
    dense: int,
    key: str,
) -> None:
    with pytest.raises(UserError) as raised:
        make(channels, dense)
    assert raised.value.key == key
