"""ForensicTransfer's activation, selection and losses by hand, its layers against the paper."""

from __future__ import annotations

import pytest
import torch
from conftest import ADAM
from torch import Tensor, nn

from forensics.detectors.forensic_transfer import (
    ForensicTransfer,
    ForensicTransferSettings,
    selected,
)
from forensics.detectors.front_ends import FrontEnd
from forensics.errors import UserError
from forensics.preprocess.base import Draws


def network(
    channels: list[int], size: int = 16, front_end: FrontEnd = FrontEnd.rgb
) -> ForensicTransfer:
    torch.manual_seed(0)
    settings = ForensicTransferSettings(channels=channels, front_end=front_end, **ADAM)
    return settings.build(size, pretrained=False)


class _Latent(nn.Module):
    """Two images: halves of mean 0.5 and 0.25, and of mean 2 and 0."""

    def forward(self, images: Tensor) -> Tensor:
        first = torch.tensor([[[[1.0, 0.0]], [[0.5, 0.0]]]])
        return torch.cat([first, torch.tensor([[[[3.0, 1.0]], [[0.0, 0.0]]]])])


class _Grey(nn.Module):
    """Reconstructs every image as grey, and keeps what it is given."""

    def forward(self, latent: Tensor) -> Tensor:
        self.given = latent
        return torch.zeros(2, 3, 4, 4)


class TestLosses:
    def test_scores_and_losses_are_those_worked_by_hand(self) -> None:
        detector, grey = network([2]), _Grey()
        detector.encoder, detector.decoder = _Latent(), grey  # type: ignore[assignment]
        images = torch.full((2, 3, 4, 4), 255.0)
        images[1] = 127.5
        loss, scores, logged = detector.step(images, torch.tensor([0.0, 1]), Draws.at(0, 0, 0))
        assert scores is not None
        assert scores.tolist() == [0.25, 2.0]
        assert detector(images).tolist() == [0.25, 2.0]
        # |0.5 - 0| + |0.25 - 1| of the generated image, |2 - 1| + |0 - 0| of the real one.
        assert logged["activation"].item() == pytest.approx((1.25 + 1.0) / 2)
        # One image is 1 away from grey, the other one is grey.
        assert logged["reconstruction"].item() == pytest.approx(0.5)
        assert loss is not None
        assert loss.item() == pytest.approx(1.125 + 0.1 * 0.5)
        assert grey.given.tolist() == [[[[0, 0]], [[0.5, 0]]], [[[3, 1]], [[0, 0]]]]
        assert detector.features(images).tolist() == [[0.5, 0.25], [2.0, 0.0]]

    def test_selection_keeps_the_half_of_the_class(self) -> None:
        latent = torch.arange(1.0, 9).reshape(2, 4, 1, 1)
        found = selected(latent, torch.tensor([1.0, 0.0])).flatten(1)
        assert found.tolist() == [[1, 2, 0, 0], [0, 0, 7, 8]]


class TestLayers:
    def test_shapes_are_the_papers(self) -> None:
        detector = network([8, 16, 32, 64, 128], 256)
        shapes = []
        for module in detector.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
        images = torch.rand(1, 3, 256, 256) * 255
        detector.step(images, torch.ones(1), Draws.at(0, 0, 0))
        encoder = [(8, 256, 256), (16, 128, 128), (32, 64, 64), (64, 32, 32), (128, 16, 16)]
        decoder = [(64, 32, 32), (32, 64, 64), (16, 128, 128), (8, 256, 256), (3, 256, 256)]
        assert shapes == encoder + decoder

    @pytest.mark.parametrize("channels", [[], [8, 0], [8, 5]])
    def test_channels_out_of_range_are_refused(self, channels: list[int]) -> None:
        with pytest.raises(UserError) as raised:
            network(channels)
        assert raised.value.key == "model.channels"

    def test_image_size_that_cannot_be_halved_is_refused(self) -> None:
        with pytest.raises(UserError) as raised:
            network([8, 16, 32, 64, 128], 24)
        assert raised.value.key == "dataset.image_size"

    def test_front_end_of_many_channels_is_reconstructed(self) -> None:
        detector = network([4, 6], front_end=FrontEnd.srm)
        images = torch.rand(2, 3, 16, 16) * 255
        loss, _, _ = detector.step(images, torch.tensor([0.0, 1]), Draws.at(0, 0, 0))
        assert loss is not None
        assert loss.isfinite()

    def test_front_end_with_weights_is_refused(self) -> None:
        with pytest.raises(UserError) as raised:
            network([4, 6], front_end=FrontEnd.constrained)
        assert raised.value.key == "model.front_end"
