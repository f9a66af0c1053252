"""Gram-Net's size, its Gram matrices by hand, its branches' places."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import ADAM

from forensics.detectors.gram_net import GramBranch, GramNetSettings, gram_matrices
from forensics.errors import UserError


def settings(**changes: Any) -> GramNetSettings:  # noqa: ANN401
    return GramNetSettings(**{"width": 64, "dropout": 0.5} | ADAM | changes)


def test_gram_matrix_by_hand() -> None:
    # Two channels of 1 x 3: products 1 + 4 + 9, 3 + 2 + 0 and 9 + 1 + 0, divided by 2 x 1 x 3.
    maps = torch.tensor([[[[1.0, 2.0, 3.0]], [[3.0, 1.0, 0.0]]]])
    expected = torch.tensor([[[14.0, 5.0], [5.0, 10.0]]]) / 6
    torch.testing.assert_close(gram_matrices(maps), expected)


def test_gram_matrix_does_not_depend_on_places_and_is_float32_under_autocast() -> None:
    maps = torch.randn(2, 5, 6, 4, generator=torch.Generator().manual_seed(0))
    shuffled = maps.flatten(2)[..., torch.randperm(24)].view_as(maps)
    torch.testing.assert_close(gram_matrices(shuffled), gram_matrices(maps))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gram_matrices(maps), gram_matrices(maps.clone()))
        assert gram_matrices(maps.bfloat16()).dtype == torch.float32


def test_parameter_count_is_that_of_the_layers() -> None:
    # ResNet-18 without its linear layer                                          11,176,512
    # six branches: 9 x 32 x (3 + 64 + 64 + 64 + 128 + 256), 6 x 2 x 32              167,136
    # six times 9 x 16 + 2 x 16 and 9 x 16 x 32 + 2 x 32                              29,088
    # 704 x 512 + 512, linear unit 513                                               361,473
    built = settings().build(128, pretrained=False)
    count = sum(one.numel() for one in built.parameters())
    assert count == 11_176_512 + 167_136 + 29_088 + 361_473


def test_branches_are_at_the_input_and_after_each_part_but_the_last() -> None:
    built = settings(width=4).build(128, pretrained=False).eval()
    shapes = []
    for branch in built.branches:
        assert isinstance(branch, GramBranch)
        branch.register_forward_hook(lambda _, given, __: shapes.append(tuple(given[0].shape[1:])))
    assert built.features(torch.zeros(1, 3, 128, 128)).shape == (1, 32)
    assert shapes == [(3, 128, 128), (4, 64, 64), (4, 32, 32), (4, 32, 32), (8, 16, 16), (16, 8, 8)]


@pytest.mark.parametrize(("name", "value"), [("width", 0), ("width", 6), ("dropout", 1.0)])
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError) as raised:
        settings(**{name: value})
    assert raised.value.key == f"model.{name}"
