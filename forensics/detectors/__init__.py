"""Detectors: networks that score images, with their training; one file each."""

from forensics.detectors.base import Detector, DetectorSettings
from forensics.detectors.co_occurrence import CoOccurrenceSettings
from forensics.detectors.colour_statistics import ColourStatisticsSettings
from forensics.detectors.dcgan_discriminator import DcganDiscriminatorSettings
from forensics.detectors.dct import DctNetworkSettings, DctRidgeSettings
from forensics.detectors.forensic_transfer import ForensicTransferSettings
from forensics.detectors.radial_spectrum import RadialSpectrumSettings
from forensics.detectors.residual_patches import ResidualPatchesSettings

__all__ = ["DETECTORS", "Detector", "DetectorSettings"]

DETECTORS: dict[str, type] = {
    "dcgan_discriminator": DcganDiscriminatorSettings,
    "residual_patches": ResidualPatchesSettings,
    "radial_spectrum": RadialSpectrumSettings,
    "colour_statistics": ColourStatisticsSettings,
    "co_occurrence": CoOccurrenceSettings,
    "dct_ridge": DctRidgeSettings,
    "dct_network": DctNetworkSettings,
    "forensic_transfer": ForensicTransferSettings,
}
"""The options of ``conf/model`` and their settings; register further ones before training."""
