"""The PGGAN of PyTorch's hub, pretrained on CelebA-HQ: it can be sampled, not trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from forensics import checks
from forensics.errors import UserError


class HubPggan(nn.Module):
    """A generator with the interface of pytorch_GAN_zoo, whose samples are downscaled.

    Args:
        model: has ``buildNoiseData(count)`` and ``test(latents)``, ``(B, 3, H, W)`` near [-1, 1].
        image_size: height and width of the images in pixels, at most the model's.
    """

    def __init__(self, model: Any, image_size: int) -> None:  # noqa: ANN401
        super().__init__()
        self._model, self._image_size = model, image_size
        self.network: nn.Module = model.netG
        latents, _ = model.buildNoiseData(1)
        self.latent_size = int(latents.shape[1])

    def draw_latents(self, count: int, draws: torch.Generator) -> Tensor:
        """N(0, 1), ``(count, latent_size)``."""
        return torch.randn(count, self.latent_size, generator=draws, device=draws.device)

    @torch.no_grad()
    def sample(self, latents: Tensor) -> Tensor:
        """Generate images and downscale them, antialiased; ``(B, 3, S, S)`` float32 in [-1, 1]."""
        images = self._model.test(latents).float().clamp(-1, 1)
        if images.shape[-1] < self._image_size:
            raise UserError(
                f"dataset.image_size={self._image_size} is larger than the {images.shape[-1]} "
                "pixels of the hub's model: lower it, or choose another generator.model_name."
            )
        size = (self._image_size, self._image_size)
        reduced: Tensor = interpolate(images, size, mode="bicubic", antialias=True)
        return reduced.clamp(-1, 1)


@dataclass
class HubPgganSettings:
    """Settings of one of the hub's models.

    **Loading it runs the repository's own code.**

    Attributes:
        repository: argument of ``torch.hub.load``: ``owner/name:branch``, downloaded, or a folder
            with ``hubconf.py``.
        model_name: name of the weights.
    """

    repository: str
    model_name: str

    def build(self, image_size: int) -> HubPggan:
        """Load the model, downloading it if it is not on this machine.

        Raises:
            UserError: if it is neither on this machine nor can be downloaded.
        """
        repository = checks.expanded("generator.repository", self.repository)
        source = "local" if Path(repository).is_dir() else "github"
        try:
            model = torch.hub.load(  # type: ignore[no-untyped-call]
                repository,
                "PGAN",
                source=source,
                trust_repo="check",  # torch asks once, unless its own projects publish it
                model_name=self.model_name,
                pretrained=True,
                useGPU=torch.cuda.is_available(),
            )
        except EOFError as error:
            raise UserError(
                f"generator.repository={self.repository} runs code that this machine does not "
                "trust yet: run the command in a terminal and answer the question, or give a "
                "folder with the repository.",
                key="generator.repository",
            ) from error
        except Exception as error:  # the repository's own code may raise anything
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"generator.repository={self.repository} gives no PGAN {self.model_name} "
                f"({reason}): it needs internet access, or a folder with the repository."
            ) from error
        return HubPggan(model, image_size)
