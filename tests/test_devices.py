"""What computes on a device: the same on the CPU and, where there is one, on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import NETWORK, SIZE
from scipy import ndimage

from forensics.compute import Precision
from forensics.preprocess import Draws
from forensics.preprocess.degradations import gaussian_blur, gaussian_noise
from forensics.preprocess.handling import Per
from forensics.preprocess.steps import Steps
from forensics.scoring.scorer import BATCH_SIZE, Scorer

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}


def levels(count: int = 4) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def batch(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(levels()).permute(0, 3, 1, 2).to(device, dtype)


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_blur_is_scipys(device: torch.device, dtype: torch.dtype, kernel_size: int) -> None:
    images = batch(device, dtype)
    blurred = gaussian_blur(images, kernel_size)
    assert (blurred.device, blurred.dtype) == (images.device, dtype)
    offsets = np.arange(kernel_size) - kernel_size // 2
    kernel = np.exp(-(offsets**2) / (2 * (0.15 * kernel_size + 0.35) ** 2))
    expected = images.double().cpu().numpy()
    for axis in (2, 3):
        expected = ndimage.correlate1d(expected, kernel / kernel.sum(), axis, mode="mirror")
    got = blurred.double().cpu().numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[dtype])


def test_noise_has_its_standard_deviation(device: torch.device, dtype: torch.dtype) -> None:
    images = torch.full((8, 3, 64, 64), 128.0, device=device, dtype=dtype)
    noisy = gaussian_noise(images, 3.0, Draws.at(0, 0, 0, rank=0, device=device).own)
    assert (noisy.device, noisy.dtype) == (images.device, dtype)
    difference = (noisy - images).double().cpu().numpy()
    # 98,304 draws: six standard errors of either.
    assert abs(difference.std() - 3) < 6 * 3 / np.sqrt(2 * difference.size)
    assert abs(difference.mean()) < 6 * 3 / np.sqrt(difference.size)


def test_strengths_of_a_batch_are_the_same_on_every_device(device: torch.device) -> None:
    steps = [{"blur": {"kernel_sizes": [1, 3, 5, 7]}}, {"noise": {"max_std_grey_levels": 5.0}}]
    operator = Steps("blur_noise", steps, 1.0, Per.batch)
    for number in range(5):
        strengths = [
            operator(
                batch(where, torch.float32), Draws.at(0, 0, number, rank=0, device=where)
            ).strengths
            for where in (torch.device("cpu"), device)
        ]
        assert strengths[0].keys() == strengths[1].keys()
        for name, values in strengths[0].items():
            assert torch.equal(values, strengths[1][name].cpu())


def test_the_scorer_gives_the_networks_scores(device: torch.device) -> None:
    torch.manual_seed(0)
    network = NETWORK.build(SIZE, pretrained=False).eval()
    rows = levels(BATCH_SIZE[device.type] + 3)
    with torch.inference_mode():
        expected = network(torch.from_numpy(rows).permute(0, 3, 1, 2).float()).numpy()
    scores = Scorer(network, Precision.fp32, device).score_rows(rows)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)
    again = Scorer(network, Precision.fp32, device).score_rows(rows[::-1].copy())[::-1]
    np.testing.assert_array_equal(scores, again)  # to the bit, whatever is beside an image
