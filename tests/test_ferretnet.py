"""FerretNet's size, and its block against a sum worked with single convolutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import ADAM
from torch.nn.functional import conv2d

from forensics.detectors.ferretnet import Block, FerretNetSettings
from forensics.detectors.front_ends import FrontEnd
from forensics.errors import UserError


def settings(**changes: Any) -> FerretNetSettings:  # noqa: ANN401
    usual = ADAM | {"width": 96, "dropout": 0.2, "front_end": FrontEnd.lpd}
    return FerretNetSettings(**usual | changes)


def test_parameter_count_is_the_papers() -> None:
    # 9 x  3 x 48 + 2 x 48                                         1,392
    # 9 x 48 x 96 + 2 x 96                                        41,664
    # a block from c to d channels: 3 x 9 x d + 2 x d x d + 4 x d,
    # with a shortcut c x d + d + 2 x d:
    #  96 -> 192     5,184 + 73,728 + 768 + 18,432 + 576          98,688
    # 192 -> 192     5,184 + 73,728 + 768                         79,680
    # 192 -> 384    10,368 + 294,912 + 1,536 + 73,728 + 1,152    381,696
    # 384 -> 384    10,368 + 294,912 + 1,536                     306,816
    # 384 x 384 + 384 + 1                                        147,841
    built = settings().build(128, pretrained=False)
    count = sum(one.numel() for one in built.parameters())
    assert count == 1_057_777  # the paper: 1.1 million


def test_maps_after_every_part() -> None:
    built = settings().build(128, pretrained=False).eval()
    shapes = []
    for layer in built.layers:
        if isinstance(layer, Block):
            layer.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    built(torch.zeros(1, 3, 128, 128))
    assert shapes == [(192, 32, 32)] * 2 + [(384, 16, 16)] * 2


@pytest.mark.parametrize(("outputs", "stride"), [(4, 2), (8, 2), (4, 1)])
def test_block_is_dilated_and_plain_filters_summed(outputs: int, stride: int) -> None:
    torch.manual_seed(0)
    block = Block(4, outputs, stride).eval()
    maps = torch.randn(2, 4, 9, 7)
    state = block.state_dict()
    near = conv2d(maps, state["near.weight"], stride=stride, padding=1, groups=4)
    spread = torch.zeros(outputs, 1, 5, 5)
    spread[..., ::2, ::2] = state["far.weight"]
    far = conv2d(maps, spread, stride=stride, padding=2, groups=4)
    one = 1 / (1 + 1e-5) ** 0.5  # BatchNorm with its first statistics
    hidden = (conv2d(near + far, state["rest.0.weight"]) * one).relu()
    hidden = conv2d(hidden, state["rest.3.weight"], padding=1, groups=outputs)
    hidden = conv2d(hidden, state["rest.4.weight"]) * one
    if stride == 1:
        expected = maps + hidden
    else:
        weight, bias = state["shortcut.0.weight"], state["shortcut.0.bias"]
        expected = conv2d(maps, weight, bias, stride=stride) * one + hidden
    torch.testing.assert_close(block(maps), expected.relu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"), [("width", 0), ("width", 3), ("dropout", 1.0), ("dropout", -0.1)]
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError) as raised:
        settings(**{name: value})
    assert raised.value.key == f"model.{name}"
