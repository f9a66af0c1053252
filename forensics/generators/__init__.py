"""Generators: networks that make images, with their training; one file each."""

from typing import Protocol

from torch import Tensor

from forensics.generators.dcgan import DcganSettings
from forensics.generators.gan import Gan
from forensics.generators.hub_pggan import HubPggan, HubPgganSettings
from forensics.generators.pggan import PgganSettings
from forensics.generators.resynthesis import Resynthesis, ResynthesisSettings
from forensics.generators.wgan_gp import WganGpSettings
from forensics.model_files import Content, Upgrade

__all__ = [
    "GENERATORS", "TRAINED", "UPGRADES", "Gan", "GeneratorSettings", "HubPggan", "Resynthesis",
]  # fmt: skip


class GeneratorSettings(Protocol):
    """Interface of the settings of every generator."""

    def build(self, image_size: int) -> Gan | HubPggan | Resynthesis:
        """Make the generator of ``(B, 3, H, W)`` images, H = W = ``image_size``."""
        ...


TRAINED: dict[str, type] = {
    "dcgan": DcganSettings,
    "wgan_gp": WganGpSettings,
    "pggan": PgganSettings,
    "resynthesis": ResynthesisSettings,
}
"""Generators that are trained here. Only these are built because a file says so: building another
one runs code that its settings name."""

GENERATORS = {**TRAINED, "hub_pggan": HubPgganSettings}
"""The options of ``conf/generator`` and their settings."""


def _from_1(content: Content, tensors: dict[str, Tensor]) -> tuple[Content, dict[str, Tensor]]:
    """Upgrade format 1: move the network's metadata into a section."""
    sections = {"name": "model", "settings": "model_settings", "image_size": "image_size"}
    network = {name: content[key] for name, key in sections.items()}
    rest = {key: value for key, value in content.items() if key not in sections.values()}
    return rest | {"format": 2, "network": network}, tensors


def _from_2(content: Content, tensors: dict[str, Tensor]) -> tuple[Content, dict[str, Tensor]]:
    """Upgrade format 2: only files of detectors changed."""
    return content | {"format": 3}, tensors


def _from_3(content: Content, tensors: dict[str, Tensor]) -> tuple[Content, dict[str, Tensor]]:
    """Upgrade format 3: only files of detectors changed."""
    return content | {"format": 4}, tensors


UPGRADES: dict[int, Upgrade] = {1: _from_1, 2: _from_2, 3: _from_3}
"""Functions that upgrade a generator file to the next format, by the file's format."""
