"""FreqNet's size, and its filters against Fourier transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ADAM
from torch.nn.functional import conv2d

from forensics.detectors.freqnet import FreqNetSettings, SpectralFilter, highpass
from forensics.errors import UserError


def test_parameter_count_is_that_of_the_layers() -> None:
    # 1x1 convolutions  3 x 64 + 64, 64 x 64 + 64, 2 x (256 x 256 + 256)    136,000
    # spectral filters  2 x 2 x 64 x 64, 2 x 2 x 256 x 256                   278,528
    # ResNet-50's stages 215,808 and 1,219,584, linear unit 513            1,435,905
    built = FreqNetSettings(width=64, **ADAM).build(128, pretrained=False)
    assert sum(one.numel() for one in built.parameters()) == 1_850_433  # about 1.9 million


@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (1, 5)])
def test_spectral_filter_is_one_of_real_and_imaginary_parts(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = SpectralFilter(3)
    maps = torch.randn(2, 3, *shape)
    spectrum = torch.fft.fft2(maps)
    real, imaginary = (
        conv2d(part, convolution.weight)
        for part, convolution in ((spectrum.real, layer.even), (spectrum.imag, layer.odd))
    )
    filtered = torch.fft.ifft2(torch.complex(real, imaginary))
    # The spectrum keeps its symmetry, so nothing but rounding is lost with the imaginary part.
    assert filtered.imag.abs().max() < 1e-6
    torch.testing.assert_close(layer(maps), filtered.real.relu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", [(1,), (2, 3)])
@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 7, 10), (1, 1, 2)])
def test_highpass_removes_low_frequencies(
    shape: tuple[int, int, int], axes: tuple[int, ...]
) -> None:
    maps = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    spectrum = np.fft.fftn(maps.double().numpy(), axes=axes)
    low = np.ones(spectrum.shape, dtype=bool)
    for axis in axes:
        frequencies = np.abs(np.fft.fftfreq(spectrum.shape[axis]))
        low &= np.expand_dims(frequencies < 0.25, [one for one in range(4) if one != axis])
    expected = np.fft.ifftn(np.where(low, 0, spectrum), axes=axes).real
    np.testing.assert_allclose(highpass(maps, axes).numpy(), expected.clip(min=0), atol=1e-5)


def test_features_are_float32_also_under_autocast() -> None:
    built = FreqNetSettings(width=4, **ADAM).build(16, pretrained=False).eval()
    images = 255 * torch.rand(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(built.features(images), built.features(images).float())
        assert built.features(images).dtype == torch.float32


def test_width_out_of_range_is_refused() -> None:
    with pytest.raises(UserError) as raised:
        FreqNetSettings(width=0, **ADAM)
    assert raised.value.key == "model.width"
