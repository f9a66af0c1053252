"""The patch-wise classifier's size, its losses and averages by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import ADAM
from scipy.special import expit, logit
from torch import Tensor

from forensics.detectors.patches import Patches, PatchesSettings, mean_probability
from forensics.errors import UserError
from forensics.preprocess.base import Draws


def settings(**changes: Any) -> PatchesSettings:  # noqa: ANN401
    return PatchesSettings(**{"channels": [32, 64, 128, 256]} | ADAM | changes)


def built() -> tuple[Patches, Tensor]:
    torch.manual_seed(0)
    return settings(channels=[4, 4, 8]).build(32, pretrained=False).eval(), torch.rand(
        3, 3, 32, 32
    ) * 255


def test_parameter_count_is_that_of_xceptions_layers() -> None:
    # 9 x 3 x 32 + 2 x 32, 9 x 32 x 64 + 2 x 64                                       19,488
    # block 1:  9 x  64 +  64 x 128 + 256, 9 x 128 + 128 x 128 + 256,  64 x 128 + 256   35,264
    # block 2:  9 x 128 + 128 x 256 + 512, 9 x 256 + 256 x 256 + 512, 128 x 256 + 512  136,064
    # linear unit                                                                          257
    network = settings().build(128, pretrained=False)
    assert sum(one.numel() for one in network.parameters()) == 191_073


def test_logit_of_the_mean_probability_is_scipys_and_does_not_saturate() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (5, 40))
    expected = logit(expit(logits).mean(axis=1))
    np.testing.assert_allclose(mean_probability(torch.from_numpy(logits)), expected, rtol=1e-9)
    large = torch.tensor([[200.0, 300.0], [-300.0, -200.0]])
    first, second = mean_probability(large).tolist()
    # The smaller of the two chances of the other class is e^100 times the larger.
    assert first == pytest.approx(200 + np.log(2), rel=1e-6)
    assert second == pytest.approx(-first)


def test_patches_are_as_many_as_the_last_maps_have_places() -> None:
    network = settings().build(128, pretrained=False).eval()
    # 128 -> 63 -> 61 -> 31 -> 16.
    assert network.patch_logits(torch.zeros(2, 3, 128, 128)).shape == (2, 256)


def test_loss_is_the_mean_over_all_patches() -> None:
    network, images = built()
    logits = network.patch_logits(images).detach().double().numpy()
    labels = torch.tensor([1.0, 0.0, 1.0])
    loss, scores, _ = network.step(images, labels, Draws.at(0, 0, 0))
    chances = np.where(labels.numpy()[:, None] == 1, expit(logits), expit(-logits))
    assert loss is not None
    assert loss.item() == pytest.approx(-np.log(chances).mean(), rel=1e-5)
    assert scores is not None
    np.testing.assert_allclose(scores.detach(), logit(expit(logits).mean(axis=1)), rtol=1e-3)
    assert network.is_probabilistic


def test_features_are_means_whose_score_is_the_mean_logit() -> None:
    network, images = built()
    means = network.score(network.features(images)).squeeze(1)
    torch.testing.assert_close(means, network.patch_logits(images).mean(dim=1))


def test_settings_out_of_range_are_refused() -> None:
    for channels in ([], [4], [4, 0]):
        with pytest.raises(UserError) as raised:
            settings(channels=channels)
        assert raised.value.key == "model.channels"
    with pytest.raises(UserError) as raised:
        settings().build(6, pretrained=False)
    assert raised.value.key == "dataset.image_size"
