"""Co-occurrence matrices by hand and by a loop, and the network on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ADAM
from torch import nn

from forensics.detectors.co_occurrence import CoOccurrence, CoOccurrenceSettings, co_occurrences
from forensics.errors import UserError


class TestCoOccurrences:
    def test_three_by_three_image_has_the_matrices_worked_by_hand(self) -> None:
        image = torch.zeros(1, 3, 3, 3)
        image[0, 0] = torch.tensor([[0.0, 1, 2], [0, 1, 1], [255, 0, 1]])
        image[0, 1] = 7
        found = co_occurrences(image, 256, cross_band=True)[0] / 256
        # Horizontal pairs of R: 0-1 1-2, 0-1 1-1, 255-0 0-1.
        pairs = {(0, 1): 3 / 6, (1, 2): 1 / 6, (1, 1): 1 / 6, (255, 0): 1 / 6}
        same = {(0, 7): 3 / 9, (1, 7): 4 / 9, (2, 7): 1 / 9, (255, 7): 1 / 9}
        expected = [
            pairs,
            {(7, 7): 1.0},
            {(0, 0): 1.0},
            same,
            {(level, 0): share for (level, _), share in same.items()},
            {(7, 0): 1.0},
        ]
        for matrix, shares in zip(found, expected, strict=True):
            taken = {(i, j): float(matrix[i, j]) for i, j in matrix.nonzero().tolist()}
            assert taken == pytest.approx(shares)

    def test_levels_are_equal_intervals(self) -> None:
        image = torch.tensor([0.0, 63, 64, 127, 128, 191, 192, 255]).expand(1, 3, 1, 8)
        found = co_occurrences(image, 4, cross_band=False)[0, 0] * 7 / 4
        expected = torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1]])
        torch.testing.assert_close(found, expected)

    def test_matrices_are_those_of_a_loop(self) -> None:
        drawn = np.random.default_rng(0).integers(0, 256, (2, 3, 6, 5))
        expected = np.zeros((2, 3, 16, 16))
        for image, channel, row, column in np.ndindex(2, 3, 6, 4):
            left, right = drawn[image, channel, row, column : column + 2] // 16
            expected[image, channel, left, right] += 16 / 24
        found = co_occurrences(torch.from_numpy(drawn).float(), 16, cross_band=False)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def network(**changes: object) -> CoOccurrence:
    given = {"levels": 256, "cross_band": False, "channels": [32, 64, 128], "hidden": 256}
    return CoOccurrenceSettings(**ADAM | given | changes).build(64, pretrained=False)


class TestNetwork:
    @pytest.mark.parametrize(("cross_band", "bands"), [(False, 3), (True, 6)])
    def test_layers_and_parameter_count_are_the_papers(self, cross_band: bool, bands: int) -> None:
        with torch.device("meta"):
            found = network(cross_band=cross_band)
        kinds = [
            (module.out_channels, module.kernel_size[0])
            for module in found.modules()
            if isinstance(module, nn.Conv2d)
        ]
        assert kinds == [(32, 3), (32, 5), (64, 3), (64, 5), (128, 3), (128, 5)]
        convolutions = sum(
            (inputs * size**2 + 1) * outputs
            for inputs, outputs, size in [
                (bands, 32, 3), (32, 32, 5), (32, 64, 3), (64, 64, 5), (64, 128, 3), (128, 128, 5)
            ]
        )  # fmt: skip
        linear = (128 * 32**2 + 1) * 256 + 257 * 256 + 257
        assert sum(p.numel() for p in found.parameters()) == convolutions + linear

    @pytest.mark.parametrize("levels", [7, 257])
    def test_levels_out_of_range_are_refused(self, levels: int) -> None:
        with pytest.raises(UserError) as raised:
            network(levels=levels)
        assert raised.value.key == "model.levels"
