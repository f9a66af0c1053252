"""Endless batches of one source's faces, for the training of a generator."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from forensics import checks
from forensics.data.datamodule import Batch, PartImages, Place
from forensics.data.demo.artefacts import DEMO_SOURCES
from forensics.data.demo.build import build_demo
from forensics.data.opening import open_source
from forensics.data.sources import Preparation, Source
from forensics.data.splits import Part
from forensics.errors import UserError
from forensics.images.geometry import ResizeFilter

DEMO_FACES = 1400
"""Number of real images of ``dataset=demo``, so that generators and detectors share them."""


@dataclass
class FacesSettings:
    """The faces a generator is trained on, and the root of its output folder.

    Attributes:
        root: folder with one folder for each source.
        image_size: height and width in pixels that images are resized to; a power of two.
        resize_filter: the antialiased filter of that resize.
        min_side: files with a shorter side in pixels are rejected.
        max_rejected_share: a source with a larger share of rejected files stops the run.
    """

    root: str
    image_size: int
    resize_filter: ResizeFilter
    min_side: int
    max_rejected_share: float

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        self.root = checks.expanded("dataset.root", self.root)
        checks.at_least(self, "dataset.", image_size=1, min_side=1)
        share = self.max_rejected_share
        checks.require(0 <= share <= 1, "dataset.max_rejected_share", share, "be in [0, 1]")


def open_faces(name: str, settings: FacesSettings, cache_dir: Path) -> Source:
    """Open the source a generator is trained on; a missing demo source is rendered first.

    Raises:
        UserError: if the source is missing or unusable.
    """
    root = Path(settings.root)
    if name in DEMO_SOURCES:
        build_demo(root, {name: DEMO_FACES})
    preparation = Preparation(
        settings.image_size,
        settings.resize_filter,
        settings.min_side,
        settings.max_rejected_share,
    )
    return open_source(name, root / name, preparation, cache_dir)


class EndlessBatches(Sampler[Place]):
    """An endless sequence of full batches, in epochs of a fixed number of batches.

    Each pass shows every image once, in an order that depends on the seed and the number of the
    pass alone; images after the last full batch of a pass are skipped in it. Each of several
    devices gets its own images of every batch. Batches are numbered from the start of the training.
    """

    def __init__(
        self, count: int, batch_size: int, per_epoch: int, seed: int, rank: int, devices: int
    ) -> None:
        self._count, self._batch_size, self._per_epoch = count, batch_size, per_epoch
        self._seed, self._rank, self._devices = seed, rank, devices
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; called by the trainer."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._per_epoch

    def __iter__(self) -> Iterator[Place]:
        per_pass = self._count // self._batch_size
        order, ordered = np.empty(0, np.int64), -1
        first = self._epoch * self._per_epoch
        for number in range(first, first + self._per_epoch):
            passes, position = divmod(number, per_pass)
            if passes != ordered:
                order = np.random.default_rng([self._seed, passes]).permutation(self._count)
                ordered = passes
            batch = order[position * self._batch_size : (position + 1) * self._batch_size]
            yield Place(self._epoch, number, batch[self._rank :: self._devices])


class Faces(pl.LightningDataModule):
    """Faces in [-1, 1] for the training of a generator.

    Args:
        name: the source's name.
        settings: location and preparation of the images.
        batch_size: images in a batch, over all devices together.
        per_epoch: batches in an epoch.
        seed: decides the order.
        cache_dir: folder of prepared images.

    Attributes (after `setup`):
        source: the faces.
    """

    source: Source

    def __init__(
        self,
        name: str,
        settings: FacesSettings,
        batch_size: int,
        per_epoch: int,
        seed: int,
        cache_dir: Path,
    ) -> None:
        super().__init__()
        self._name, self._settings, self._cache_dir = name, settings, cache_dir
        self.batch_size, self._per_epoch, self._seed = batch_size, per_epoch, seed
        self._is_set_up = False

    def setup(self, stage: str | None = None) -> None:
        """Prepare the faces; further calls do nothing.

        Raises:
            UserError: if the source is missing or unusable, or a batch cannot be filled.
        """
        if self._is_set_up:
            return
        self.source = open_faces(self._name, self._settings, self._cache_dir)
        if len(self.source) < self.batch_size:
            raise UserError(
                f"batch_size={self.batch_size} is more than the {len(self.source)} images of "
                f"{self._name}: lower batch_size or add images."
            )
        self._is_set_up = True

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint: a hash of all faces."""
        digest = hashlib.blake2b(b"".join(self.source.digests), digest_size=16)
        return {"images": digest.hexdigest()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the faces with those of a checkpoint.

        Raises:
            UserError: if they differ.
        """
        if state_dict != self.state_dict():
            raise UserError(
                f"The images of {self._name} are not those that the run began with: restore "
                "them, or start a new run."
            )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of raw grey levels."""
        count = len(self.source)
        everything = Part(np.zeros(count, np.int64), np.arange(count))
        trainer = self.trainer
        place = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return DataLoader(
            PartImages(everything, [self.source], real_sources=1),
            batch_size=None,
            sampler=EndlessBatches(count, self.batch_size, self._per_epoch, self._seed, *place),
            pin_memory=torch.cuda.is_available(),
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Scale to [-1, 1] on the device."""
        return batch._replace(images=batch.images.float().div_(127.5).sub_(1))
