"""Detectors: networks that score images, with their training; one file each."""

from forensics.detectors.base import Detector, DetectorSettings
from forensics.detectors.dcgan_discriminator import DcganDiscriminatorSettings
from forensics.detectors.radial_spectrum import RadialSpectrumSettings
from forensics.detectors.residual_patches import ResidualPatchesSettings

__all__ = ["DETECTORS", "Detector", "DetectorSettings"]

DETECTORS: dict[str, type] = {
    "dcgan_discriminator": DcganDiscriminatorSettings,
    "residual_patches": ResidualPatchesSettings,
    "radial_spectrum": RadialSpectrumSettings,
}
"""The options of ``conf/model`` and their settings; register further ones before training."""
