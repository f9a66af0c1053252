"""DCT against SciPy's, ridge regression against scikit-learn's, the network against the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ADAM
from scipy.fft import dctn
from sklearn.linear_model import Ridge, RidgeClassifier
from torch import Tensor, nn

from forensics.detectors.dct import DctNetworkSettings, DctRidgeSettings, LogDct
from forensics.errors import UserError


def noise(count: int, size: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 255


class TestLogDct:
    @pytest.mark.parametrize("size", [7, 8])
    def test_logarithms_are_those_of_scipys_dct(self, size: int) -> None:
        images = noise(4, size)
        expected = np.log10(abs(dctn(images.double().numpy(), axes=(2, 3), norm="ortho")) + 0.01)
        np.testing.assert_allclose(LogDct(size).logarithms(images), expected, rtol=1e-5, atol=1e-5)

    def test_zero_has_a_finite_logarithm(self) -> None:
        found = LogDct(8).logarithms(torch.zeros(1, 3, 8, 8))
        torch.testing.assert_close(found, torch.full_like(found, -2.0))

    def test_coefficients_are_standardised_one_by_one(self) -> None:
        transform, images = LogDct(8), noise(50)
        logarithms = transform.logarithms(images)
        transform.fit(logarithms.chunk(3))
        np.testing.assert_allclose(transform.mean, logarithms.numpy().mean(0), rtol=1e-5)
        std, mean = torch.std_mean(transform(images), dim=0, correction=0)
        torch.testing.assert_close(std, torch.ones_like(std), rtol=1e-4, atol=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-4)

    def test_coefficients_that_never_vary_stay_finite(self) -> None:
        transform = LogDct(8)
        transform.fit([transform.logarithms(torch.full((5, 3, 8, 8), 7.0))])
        assert transform(noise(2)).isfinite().all()


class TestRidge:
    @pytest.mark.parametrize("count", [30, 400])
    def test_weights_are_scikit_learns(self, count: int) -> None:
        images, labels = noise(count), (torch.arange(count) % 3 == 0).float()
        detector = DctRidgeSettings(penalty=20.0).build(8, pretrained=False)
        detector.prepare([(images[:10], labels[:10]), (images[10:], labels[10:])])
        samples = detector.transform(images).flatten(1).double().numpy()
        oracle = Ridge(alpha=20.0).fit(samples, 2 * labels.numpy() - 1)
        np.testing.assert_allclose(detector.weight, oracle.coef_, rtol=1e-3, atol=1e-6)
        new = noise(9, seed=1)
        flat = detector.transform(new).flatten(1).double().numpy()
        np.testing.assert_allclose(detector(new), oracle.predict(flat), rtol=1e-3, atol=1e-4)
        verdicts = RidgeClassifier(alpha=20.0).fit(samples, labels).predict(flat)
        assert ((detector(new) > 0).float().numpy() == verdicts).all()

    @pytest.mark.parametrize("penalty", [0.0, -1.0, float("nan")])
    def test_penalty_out_of_range_is_refused(self, penalty: float) -> None:
        with pytest.raises(UserError) as raised:
            DctRidgeSettings(penalty=penalty)
        assert raised.value.key == "model.penalty"


class TestNetwork:
    def test_layers_and_parameter_count_are_the_papers(self) -> None:
        network = DctNetworkSettings(channels=[3, 8, 16, 32], **ADAM).build(128, pretrained=False)
        shapes = []
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape)))
        network(noise(2, 128))
        assert shapes == [(2, 3, 128, 128), (2, 8, 128, 128), (2, 16, 64, 64), (2, 32, 32, 32)]
        # (9 x 3 + 1) x 3 + (9 x 3 + 1) x 8 + (9 x 8 + 1) x 16 + (9 x 16 + 1) x 32, and the last.
        assert sum(p.numel() for p in network.parameters()) == 6_116 + 32 * 32 * 32 + 1

    @pytest.mark.parametrize("channels", [[], [3, 8, 16], [3, 8, 16, 0]])
    def test_channels_out_of_range_are_refused(self, channels: list[int]) -> None:
        with pytest.raises(UserError) as raised:
            DctNetworkSettings(channels=channels, **ADAM)
        assert raised.value.key == "model.channels"
