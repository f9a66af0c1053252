"""Interface of training augmentations (the paper: preprocessing), and their random draws."""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor


class Draws(NamedTuple):
    """The random generators of one batch.

    Attributes:
        shared: on the CPU, in the same state on every device that trains on a part of the batch:
            what holds for the complete batch is drawn from it, and without waiting for a device.
        own: on the images' device, different on every device: for what differs between images
            and pixels.
    """

    shared: torch.Generator
    own: torch.Generator

    @classmethod
    def at(
        cls, seed: int, epoch: int, batch: int, *, rank: int = 0, device: torch.device | str = "cpu"
    ) -> "Draws":
        """The draws of one place in training, the same however training got there.

        Args:
            seed: the run's seed, >= 0.
            epoch: number of the epoch, from 0.
            batch: number of the batch within the epoch, from 0.
            rank: number of the device among those that train together.
            device: where the images are.
        """

        def generator(place: list[int], device: torch.device | str) -> torch.Generator:
            state = np.random.SeedSequence(place).generate_state(1, np.uint64)[0]
            # manual_seed takes 64 bits, but as a signed number.
            return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))

        return cls(
            generator([seed, epoch, batch], "cpu"),
            generator([seed, epoch, batch, 1 + rank], device),
        )


class Preprocessed(NamedTuple):
    """A batch after its preprocess.

    Attributes:
        images: ``(B, C, H, W)`` float, grey levels in [0, 255].
        strengths: what was drawn, by name, each ``(B,)`` float on the CPU.
    """

    images: Tensor
    strengths: dict[str, Tensor]


class Preprocess(Protocol):
    """Interface of every training augmentation."""

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Preprocess ``images``, ``(B, C, H, W)`` float in [0, 255], which stay as they are."""
        ...
