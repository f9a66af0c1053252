"""Networks that score an image, one file each, with how each is trained."""

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
"""The options of ``conf/model`` and their settings; add one's own before training."""
