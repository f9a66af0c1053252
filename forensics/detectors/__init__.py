"""Detectors: networks that score images, with their training; one file each."""

from forensics.detectors.backbone import (
    BackboneSettings,
    CnnDetectionSettings,
    NoDownSettings,
    UnivFdSettings,
    Vgg16Settings,
    XceptionSettings,
)
from forensics.detectors.base import Detector, DetectorSettings
from forensics.detectors.bayar import Bayar2016Settings, MislNetSettings
from forensics.detectors.co_occurrence import CoOccurrenceSettings
from forensics.detectors.colour_statistics import ColourStatisticsSettings
from forensics.detectors.dcgan_discriminator import DcganDiscriminatorSettings
from forensics.detectors.dct import DctNetworkSettings, DctRidgeSettings
from forensics.detectors.ensemble import EnsembleSettings
from forensics.detectors.ferretnet import FerretNetSettings
from forensics.detectors.forensic_transfer import ForensicTransferSettings
from forensics.detectors.freqnet import FreqNetSettings
from forensics.detectors.gncnn import GncnnSettings
from forensics.detectors.gram_net import GramNetSettings
from forensics.detectors.meso import Meso4Settings, MesoInception4Settings
from forensics.detectors.patches import PatchesSettings
from forensics.detectors.radial_spectrum import RadialSpectrumSettings
from forensics.detectors.residual_patches import ResidualPatchesSettings
from forensics.detectors.shallow_net import ShallowNetV1Settings, ShallowNetV3Settings
from forensics.detectors.truncated_resnet import NprSettings, SafeSettings

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
    "meso4": Meso4Settings,
    "meso_inception4": MesoInception4Settings,
    "shallow_net_v1": ShallowNetV1Settings,
    "shallow_net_v3": ShallowNetV3Settings,
    "gncnn": GncnnSettings,
    "bayar2016": Bayar2016Settings,
    "mislnet": MislNetSettings,
    "npr": NprSettings,
    "safe": SafeSettings,
    "ferretnet": FerretNetSettings,
    "freqnet": FreqNetSettings,
    "gram_net": GramNetSettings,
    "patches": PatchesSettings,
    "timm": BackboneSettings,
    "cnn_detection": CnnDetectionSettings,
    "no_down": NoDownSettings,
    "univfd": UnivFdSettings,
    "xception": XceptionSettings,
    "vgg16": Vgg16Settings,
    "ensemble": EnsembleSettings,
}
"""The options of ``conf/model`` and their settings; register further ones before training."""
