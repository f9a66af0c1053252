"""Networks that score an image, one file each; a score above 0 means real."""

from typing import Protocol

from torch import nn

from forensics.detectors.dcgan_discriminator import DcganDiscriminator


class DetectorSettings(Protocol):
    """What the settings of every detector can do."""

    def build(self, image_size: int) -> nn.Module:
        """Make a network from ``(B, 3, H, W)`` float in [-1, 1] to ``(B,)`` float32 logits.

        Its ``features`` gives of the same images what its last unit decides by, ``(B, ...)``; its
        ``last_feature_layer`` is the module within it whose output are the last feature maps,
        ``(B, C, h, w)``, which tell where in an image it found its evidence.
        """
        ...


DETECTORS: dict[str, type] = {"dcgan_discriminator": DcganDiscriminator}
"""The options of ``conf/model`` and their settings; add one's own before training."""
