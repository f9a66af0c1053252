"""NPR's and SAFE's network against torchvision's ResNet-50 and the papers' sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import ADAM
from torch import nn
from torchvision.models import resnet50

from forensics.detectors.front_ends import FrontEnd
from forensics.detectors.truncated_resnet import NprSettings, SafeSettings
from forensics.errors import UserError


def settings(**changes: Any) -> NprSettings:  # noqa: ANN401
    return NprSettings(**ADAM | {"width": 64, "front_end": FrontEnd.npr} | changes)


@pytest.mark.parametrize("kind", [NprSettings, SafeSettings])
def test_parameter_count_is_the_papers(kind: type[NprSettings]) -> None:
    # First convolution 9 x 3 x 64 and BatchNorm 2 x 64, linear unit 512 + 1;
    # ResNet-50's first two stages have 215,808 and 1,219,584. The paper: 1.44 million.
    built = kind(width=64, **ADAM).build(128, pretrained=False)
    count = sum(one.numel() for one in built.parameters())
    assert count == 1_728 + 128 + 215_808 + 1_219_584 + 513


def test_stages_compute_what_torchvisions_resnet50_does() -> None:
    torch.manual_seed(0)
    ours = settings().build(32, pretrained=False).eval()
    theirs = resnet50().eval()
    theirs.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
    theirs.layer3 = theirs.layer4 = nn.Identity()
    theirs.fc = nn.Identity()
    values = [v for k, v in ours.state_dict().items() if not k.startswith("score")]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    images = 255 * torch.rand(2, 3, 32, 32)
    features = ours.features(images)
    torch.testing.assert_close(features, theirs(ours.front_end(images)))
    torch.testing.assert_close(ours(images), ours.score(features).squeeze(1))


@pytest.mark.parametrize(("size", "side"), [(128, 16), (16, 2), (17, 3), (2, 1)])
def test_maps_have_an_eighth_of_the_images_size(size: int, side: int) -> None:
    built = settings(width=4).build(size, pretrained=False).eval()
    shapes = []
    built.saliency_layer().register_forward_hook(lambda _, __, out: shapes.append(out.shape))
    built(torch.zeros(1, 3, size, size))
    assert shapes == [(1, 32, side, side)]


def test_front_end_gives_the_number_of_input_channels() -> None:
    built = settings(width=4, front_end=FrontEnd.srm).build(16, pretrained=False)
    assert built(torch.zeros(2, 3, 16, 16)).shape == (2,)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UserError) as raised:
        settings(width=0)
    assert raised.value.key == "model.width"
    with pytest.raises(UserError) as raised:
        settings().build(1, pretrained=False)
    assert raised.value.key == "dataset.image_size"
