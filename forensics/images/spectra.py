"""Power spectra of images, in which upsampling leaves traces."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

STD_FLOOR = 0.01
"""Least standard deviation in decades, so that frequencies of little variance do not dominate."""


def log_power(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The log10 power of the images' grey values.

    Args:
        images: ``(n, S, S, 3)`` uint8. The mean grey value is subtracted and a Hann window applied;
            otherwise the step between opposite borders would appear as a cross.

    Returns:
        ``(n, S, S)``, frequency 0 in the middle.
    """
    # The mean over three channels, ten times as fast as along an axis of three.
    grey = (images[..., 0].astype(float) + images[..., 1] + images[..., 2]) / 3
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    window = np.hanning(grey.shape[1])
    spectrum = np.fft.fft2(grey * window[:, None] * window[None, :])
    power = np.log10(np.abs(spectrum) ** 2 + 1e-3)
    return np.asarray(np.fft.fftshift(power, axes=(1, 2)))


def mean_log_power(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean of `log_power` over images; ``(S, S)``."""
    return np.asarray(log_power(images).mean(axis=0))


def radial_profile(power: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of a spectrum over all directions.

    Args:
        power: ``(S, S)``, frequency 0 in the middle.

    Returns:
        Frequencies in cycles per pixel, from 0 to 0.5 (the corners beyond it are left out), and
        the mean at each.
    """
    size = len(power)
    within, radius, counts = _rings(size)
    return (
        np.arange(len(counts)) / size,
        np.bincount(radius, weights=power.ravel()[within]) / counts,
    )


@lru_cache(maxsize=4)
def _rings(size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Flat positions of the frequencies up to 0.5, the ring of each, and the rings' sizes."""
    frequency = np.fft.fftshift(np.fft.fftfreq(size))
    radius = np.rint(np.hypot(frequency[:, None], frequency[None, :]) * size).astype(int).ravel()
    within = np.flatnonzero(radius <= size // 2)
    return within, radius[within], np.bincount(radius[within])


def profiles(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The radial profile of each image's spectrum.

    Args:
        images: ``(n, S, S, 3)`` uint8.

    Returns:
        ``(n, S // 2 + 1)`` mean log10 power at the frequencies of `radial_profile`.
    """
    return np.stack([radial_profile(log_power(image[None])[0])[1] for image in images])


def distance(
    profiles: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance of profiles from those of a source, in the source's standard deviations.

    Args:
        profiles: ``(n, F)``, from `profiles`.
        mean: ``(F,)`` mean of the source's profiles.
        std: ``(F,)`` their standard deviation.

    Returns:
        ``(n,)`` the largest deviation from 1/4 cycles per pixel on. There upsampling leaves traces
        at a few frequencies, which a mean over all would hide; below, faces vary too much.
    """
    upper = slice(profiles.shape[1] // 2, None)
    deviations = (profiles - mean) / np.maximum(std, STD_FLOOR)
    return np.asarray(np.abs(deviations[:, upper]).max(axis=1))


def nearest(
    profiles: NDArray[np.float64], spectra: Mapping[str, Mapping[str, Sequence[float]]]
) -> NDArray[np.float64]:
    """`distance` of each profile to the nearest source; ``(n,)``.

    Args:
        profiles: ``(n, F)``, from `profiles`.
        spectra: ``mean`` and ``std`` of the profiles, by source.
    """
    distances = [
        distance(profiles, np.array(source["mean"]), np.array(source["std"]))
        for source in spectra.values()
    ]
    return np.asarray(np.min(distances, axis=0))
