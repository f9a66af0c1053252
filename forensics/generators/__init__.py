"""Networks that make images, one file each, with how each is trained."""

from typing import Protocol

from forensics.generators.dcgan import DcganSettings
from forensics.generators.gan import Gan
from forensics.generators.hub_pggan import HubPggan, HubPgganSettings
from forensics.generators.pggan import PgganSettings
from forensics.generators.wgan_gp import WganGpSettings

__all__ = ["GENERATORS", "Gan", "GeneratorSettings", "HubPggan"]


class GeneratorSettings(Protocol):
    """What the settings of every generator can do."""

    def build(self, image_size: int) -> Gan | HubPggan:
        """Make what generates ``(B, 3, H, W)`` images, H = W = ``image_size``."""
        ...


GENERATORS: dict[str, type] = {
    "dcgan": DcganSettings,
    "wgan_gp": WganGpSettings,
    "pggan": PgganSettings,
    "hub_pggan": HubPgganSettings,
}
"""The options of ``conf/generator`` and their settings; add one's own before training."""
