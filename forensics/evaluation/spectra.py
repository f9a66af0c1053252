"""Spectra of images, where upsampling leaves its traces."""

import numpy as np
from numpy.typing import NDArray


def mean_log_power(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean over images of the log10 power of their grey values.

    Args:
        images: ``(n, S, S, 3)`` uint8. The mean grey value is taken out and a Hann window put
            on, or the jump between opposite borders would show as a cross.

    Returns:
        ``(S, S)``, frequency 0 in the middle.
    """
    grey = images.mean(axis=3)
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    window = np.hanning(grey.shape[1])
    spectrum = np.fft.fft2(grey * window[:, None] * window[None, :])
    power = np.log10(np.abs(spectrum) ** 2 + 1e-3).mean(axis=0)
    return np.asarray(np.fft.fftshift(power))


def radial_profile(power: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of a spectrum over all directions.

    Args:
        power: ``(S, S)``, frequency 0 in the middle.

    Returns:
        Frequencies in cycles per pixel, from 0 to 0.5 (the corners beyond it are left out), and
        the mean at each.
    """
    size = len(power)
    frequency = np.fft.fftshift(np.fft.fftfreq(size))
    radius = np.rint(np.hypot(frequency[:, None], frequency[None, :]) * size).astype(int)
    within = radius <= size // 2
    counts = np.bincount(radius[within])
    return (
        np.arange(len(counts)) / size,
        np.bincount(radius[within], weights=power[within]) / counts,
    )
