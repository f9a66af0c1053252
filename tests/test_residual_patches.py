"""The small network on a residual: its field of view, its pooling, its size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import residual_patches
from numpy.typing import NDArray
from torch import Tensor, nn

from forensics.detectors import Detector
from forensics.detectors.front_ends import Fixed, FrontEnd
from forensics.errors import UserError
from forensics.preprocess.base import Draws

SMALL = residual_patches([8, 8, 8, 8])


def images(count: int, *shape: int) -> Tensor:
    """Noise in [0, 255]."""
    return torch.rand(count, 3, *shape, generator=torch.Generator().manual_seed(0)) * 255


def built(front_end: str = "npr") -> Detector:
    torch.manual_seed(0)
    settings = residual_patches([8, 8, 8, 8], front_end=front_end)
    return settings.build(64, pretrained=False).eval()


def maps(detector: Detector, batch: Tensor) -> Tensor:
    """The last maps, which pooling gets."""
    kept: list[Tensor] = []
    layer = detector.saliency_layer()
    assert layer is not None
    hook = layer.register_forward_hook(lambda _, __, out: kept.append(out))
    detector.features(batch)
    hook.remove()
    return kept[0].detach()


def seen(detector: Detector, axis: int) -> NDArray[np.int64]:
    """Rows or columns of which the map at row and column 8, pixel 32, is a function."""
    original = images(1, 64, 64).double()
    changed = original.repeat(64, 1, 1, 1)
    for place in range(64):
        changed[place].select(axis, place).copy_(images(1, 64).double()[0])
    found = maps(detector.double(), torch.cat([original, changed]))[:, :, 8, 8]
    moved = (found[1:] - found[0]).abs().amax(dim=1) > 1e-9
    return np.asarray(np.flatnonzero(moved.numpy())) - 32


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize(
    ("front_end", "first", "last"),
    [("rgb", -9, 9), ("npr", -10, 9), ("lpd", -10, 10), ("laplacian", -10, 10)],
)
def test_receptive_field_is_the_documented_one(
    front_end: str, first: int, last: int, axis: int
) -> None:
    # Back from the last of four convolutions: 3 px at stride 4, then 2 x 2 more at stride 2, twice,
    # and 2 at stride 1: 1 + 8 + 4 + 4 + 2 = 19, half of it before the pixel and half behind.
    assert seen(built(front_end), axis).tolist() == list(range(first, last + 1))


def test_parameter_count_is_that_of_the_layers() -> None:
    # Convolution: 9 x inputs x outputs, BatchNorm: 2 x channels, linear unit: 2 x channels + 1.
    # 9 x   3 x  32 + 2 x  32        928
    # 9 x  32 x  64 + 2 x  64     18,560
    # 9 x  64 x 128 + 2 x 128     73,984
    # 9 x 128 x 128 + 2 x 128    147,712
    # 2 x 128 + 1                    257
    detector = residual_patches([32, 64, 128, 128]).build(128, pretrained=False)
    assert sum(one.numel() for one in detector.parameters()) == 241_441


@pytest.mark.parametrize("front_end", FrontEnd)
@pytest.mark.parametrize("shape", [(16, 16), (17, 33), (128, 31), (2, 2)])
def test_images_of_any_size_are_scored(front_end: str, shape: tuple[int, int]) -> None:
    detector, batch = built(front_end), images(2, *shape)
    assert maps(detector, batch).shape == (2, 8, -(-shape[0] // 4), -(-shape[1] // 4))
    assert detector(batch).shape == (2,)
    assert detector(batch).isfinite().all()


def test_features_are_means_and_standard_deviations_over_all_places() -> None:
    detector, batch = built(), images(3, 20, 17)
    of_numpy = maps(detector, batch).double().numpy()
    mean = of_numpy.mean(axis=(2, 3))
    std = np.sqrt(of_numpy.var(axis=(2, 3)) + 1e-5)
    found = detector.features(batch)
    assert found is not None
    expected = np.concatenate([mean, std], axis=1)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_score_is_the_linear_unit_of_the_features() -> None:
    detector, batch = built(), images(3, 20, 17)
    found = detector.features(batch)
    assert found is not None
    (unit,) = (layer for layer in detector.modules() if isinstance(layer, nn.Linear))
    expected = found.double() @ unit.weight[0].double() + unit.bias.double()
    torch.testing.assert_close(detector(batch).double(), expected, rtol=1e-5, atol=1e-6)


def test_layers_are_convolutions_each_with_a_norm_and_a_relu() -> None:
    layers = [layer for layer in built().modules() if not list(layer.children())]
    assert [type(layer) for layer in layers] == [
        Fixed,
        *[nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 4,
        nn.Linear,
    ]


def test_pooling_and_score_are_float32_under_bfloat16_autocast() -> None:
    detector, batch = built(), images(64, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = maps(detector, batch)
        found, logits = detector.features(batch), detector(batch)
    assert rounded.dtype == torch.bfloat16  # the convolutions did run in it
    assert found is not None
    expected = rounded.double().mean(dim=(2, 3))
    torch.testing.assert_close(found[:, :8].double(), expected, rtol=1e-5, atol=1e-6)
    assert found.dtype == logits.dtype == torch.float32
    assert len(logits.unique()) > len(logits.bfloat16().unique())


def test_gradient_is_finite_where_a_channel_is_0_everywhere() -> None:
    detector = built().train()
    flat = torch.full((4, 3, 16, 16), 100.0)
    loss = detector.step(flat, torch.tensor([0.0, 1.0, 0.0, 1.0]), Draws.at(0, 0, 0)).loss
    assert loss is not None
    torch.autograd.backward(loss)
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("channels", [[], [0], [8, -1]])
def test_channels_out_of_range_are_refused(channels: list[int]) -> None:
    with pytest.raises(UserError) as raised:
        residual_patches(channels)
    assert raised.value.key == "model.channels"


def test_front_end_may_be_plain_text_but_must_be_known() -> None:
    assert residual_patches([8], front_end="lpd").front_end is FrontEnd.lpd
    with pytest.raises(ValueError, match="edges"):
        residual_patches([8], front_end="edges")


def test_image_without_neighbourhoods_is_refused() -> None:
    with pytest.raises(UserError) as raised:
        SMALL.build(1, pretrained=False)
    assert raised.value.key == "dataset.image_size"
