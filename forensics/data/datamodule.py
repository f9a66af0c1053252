"""Batches of prepared images, and their preprocessing on the device."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from forensics.compute import in_order
from forensics.data.codec import jpeg_qualities
from forensics.data.demo.build import build_demo
from forensics.data.opening import open_sources
from forensics.data.settings import DatasetSettings
from forensics.data.shards import ShardedRows
from forensics.data.sources import Preparation, Source, rows_hash
from forensics.data.splits import Part, Split, needed_images, split_sources
from forensics.errors import UserError
from forensics.images.geometry import Match, View
from forensics.preprocess.base import Draws, Preprocess, Preprocessed

log = logging.getLogger(__name__)

_BATCHES_AHEAD = 8


class Place(NamedTuple):
    """Images of a batch and its place in training."""

    epoch: int
    number: int
    positions: NDArray[np.int64]


class Batch(NamedTuple):
    """A batch of images for the detector.

    Attributes:
        images: ``(B, 3, H, W)`` pixel values in [0, 255]: uint8 until the device, then float.
        labels: ``(B,)`` float, 1 for real and 0 for generated.
        positions: ``(B,)`` int64, position of each image in its part of the split.
        epoch: number of the epoch, from 0.
        number: number of the batch in the epoch, from 0.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor
    epoch: int
    number: int


class ShuffledBatches(Sampler[Place]):
    """Full batches in an order that depends on seed and epoch alone.

    Each of several devices gets its own images of every batch; together they are the batch that
    one device would get. Images after the last full batch are skipped in that epoch.

    Args:
        groups: ``(n, k)`` positions: the k images of a row are in one batch, which lists the first
            images of its rows, then the second ones.
        batch_size: images in a batch, a multiple of k times ``devices``.
        seed: decides the order, together with the epoch.
        rank: number of this device.
        devices: number of devices.
    """

    def __init__(
        self,
        groups: NDArray[np.int64],
        batch_size: int,
        seed: int,
        rank: int,
        devices: int,
    ) -> None:
        self._groups, self._seed = groups, seed
        self._in_batch = batch_size // groups.shape[1]
        self._rank, self._devices = rank, devices
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that determines the order; called by the trainer."""
        self._epoch = epoch

    def __len__(self) -> int:
        return int(len(self._groups) // self._in_batch)

    def __iter__(self) -> Iterator[Place]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(len(self._groups))
        for number in range(len(self)):
            batch = order[number * self._in_batch : (number + 1) * self._in_batch]
            positions = self._groups[batch[self._rank :: self._devices]].T.ravel()
            yield Place(self._epoch, number, positions)


class OrderedBatches(Sampler[Place]):
    """Every image once, in order, over all devices together, in batches of nearly equal size.

    Each device gets the same number of batches; otherwise some would wait for others.

    Raises:
        UserError: if there are fewer images than devices.
    """

    def __init__(self, count: int, batch_size: int, rank: int, devices: int) -> None:
        if count < devices:
            raise UserError(
                f"{devices} devices are more than the {count} images of a part of the "
                "split: use fewer devices or add images."
            )
        batches = min(-(-count // batch_size), count // devices)
        self._batches = np.array_split(np.arange(rank, count, devices), batches)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Place]:
        for number, positions in enumerate(self._batches):
            yield Place(0, number, positions)


class PartImages(Dataset[Batch]):
    """The images of one part of the split, as batches.

    Args:
        part: the images.
        sources: the sources that ``part`` refers to.
        real_sources: number of real sources, which come first in ``sources``.
    """

    def __init__(self, part: Part, sources: list[Source], real_sources: int) -> None:
        self._part, self._sources = part, sources
        self._labels = torch.from_numpy((part.source < real_sources).astype(np.float32))

    def __getitem__(self, place: Place) -> Batch:
        """Copy a batch out of the rows."""
        positions = place.positions
        owners, rows = self._part.source[positions], self._part.row[positions]
        images = np.empty((len(positions), *self._sources[0].rows.shape[1:]), np.uint8)
        for number in np.unique(owners):
            of_source = owners == number
            images[of_source] = self._sources[number].rows[rows[of_source]]
            self._sources[number].forget_pages()
        where = torch.from_numpy(positions)
        return Batch(
            # Rows are stored channels last; as (B, 3, H, W) they are channels_last in memory.
            torch.from_numpy(images).permute(0, 3, 1, 2),
            self._labels[where],
            where,
            place.epoch,
            place.number,
        )


class _ReadAhead(DataLoader[Batch]):
    """Batches that threads read before they are wanted, for rows that take time to arrive."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return in_order(self.dataset.__getitem__, self.sampler, _BATCHES_AHEAD)


class FaceData(pl.LightningDataModule):
    """Real and generated faces, split as in the paper; preprocess in training only.

    Args:
        settings: sources and image counts.
        preprocess: training augmentation (the paper: preprocessing).
        batch_size: images in a batch, over all devices together.
        seed: decides validation images, order and the preprocess's draws.
        cache_dir: folder of prepared images, or a URI of object storage.
        spare: number of images of each source prepared besides those that can be in the split.

    Attributes (after `setup`):
        sources: those of ``settings.names``, in that order: real ones first.
        split: the images for training, validation and test.
    """

    sources: list[Source]
    split: Split

    def __init__(
        self,
        settings: DatasetSettings,
        preprocess: Preprocess,
        batch_size: int,
        seed: int,
        cache_dir: Path | str,
        spare: int = 0,
    ) -> None:
        super().__init__()
        self.settings, self._spare = settings, spare
        self._preprocess = preprocess
        self.batch_size, self._seed, self._cache_dir = batch_size, seed, cache_dir
        self._is_set_up = False

    def setup(self, stage: str | None = None) -> None:
        """Prepare the sources and split them; further calls do nothing.

        Raises:
            UserError: if a source is missing or unusable, or a batch cannot be filled.
        """
        if self._is_set_up:
            return
        settings = self.settings
        if settings.toy:
            fitted = (*settings.real, *settings.train_on, *settings.validate_on)
            train, test = settings.train_count or 0, settings.test_count or 0
            counts = {name: test + train * (name in fitted) for name in settings.names}
            build_demo(Path(settings.root), counts)
        preparation = Preparation(
            settings.side,
            settings.resize_filter,
            max(settings.min_side, settings.crop_size or 0),
            settings.max_rejected_share,
            settings.match,
            settings.view,
        )
        folders = {name: settings.folder(name) for name in settings.names}
        if settings.match is Match.codec:
            reals = {name: folders[name] for name in settings.real}
            qualities = jpeg_qualities(reals, settings.train_count)
            generated = [name for name in settings.names if name not in settings.all_real]
            preparation = preparation._replace(qualities=dict.fromkeys(generated, qualities))
        needed = needed_images(settings, self._spare)
        self.sources = open_sources(folders, preparation, self._cache_dir, needed, settings.below)
        self.split = split_sources(self.sources, settings, self._seed)
        if len(self.split.train) < self.batch_size:
            raise UserError(
                f"batch_size={self.batch_size} is more than the {len(self.split.train)} "
                "training images: lower batch_size or add images."
            )
        self._is_set_up = True

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint: a hash of each source's share of the split."""
        split = self.split
        return self._hashes(split.train, split.validation, split.test)

    def test_hashes(self) -> dict[str, str]:
        """A hash of each source's test images: runs with equal hashes tested the same images."""
        hashes, tested = self._hashes(self.split.test), self.split.test.source
        return {self.settings.names[position]: hashes[self.settings.names[position]]
                for position in np.unique(tested)}  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the images with those of a checkpoint.

        Raises:
            UserError: if they differ; it names the source.
        """
        for name, images in self.state_dict().items():
            if state_dict.get(name) != images:
                raise UserError(
                    f"The images of {name} are not those that the run began with: restore them, "
                    "or start a new run."
                )

    def _hashes(self, *parts: Part) -> dict[str, str]:
        return {
            source.name: rows_hash(source, *(part.of_source(position) for part in parts))
            for position, source in enumerate(self.sources)
        }

    def _loader(self, part: Part, batches: Sampler[Place]) -> DataLoader[Batch]:
        # No workers: copying mapped rows takes less time than passing them between processes.
        in_storage = any(isinstance(source.rows, ShardedRows) for source in self.sources)
        kind = _ReadAhead if in_storage else DataLoader[Batch]
        return kind(
            PartImages(part, self.sources, len(self.settings.all_real)),
            batch_size=None,
            sampler=batches,
            pin_memory=torch.cuda.is_available(),
        )

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled full batches of the training images."""
        return self._loader(self.split.train, self._shuffled(*self._place()))

    def _shuffled(self, rank: int = 0, devices: int = 1) -> ShuffledBatches:
        single = np.arange(len(self.split.train))[:, None]
        groups = self.split.pairs if self.settings.paired else single
        return ShuffledBatches(groups, self.batch_size, self._seed, rank, devices)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation images, in order."""
        part = self.split.validation
        return self._loader(part, OrderedBatches(len(part), self.batch_size, *self._place()))

    def prepared_batches(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels of the first epoch, preprocessed, all of them on one device."""
        for batch in self._loader(self.split.train, self._shuffled()):
            batch = self.transfer_batch_to_device(batch, device, 0)
            yield self.preprocess(self.cropped(batch)).images, batch.labels

    def cropped(self, batch: Batch, rank: int = 0) -> Batch:
        """Random crops of the images, drawn by epoch and number of the batch; for `View.crop`.

        Args:
            batch: raw images, ``(B, 3, side, side)``.
            rank: number of this device.

        Returns:
            ``(B, 3, image_size, image_size)``; both images of a pair are cropped at one place.
        """
        settings, count = self.settings, len(batch.images)
        if settings.view is not View.crop:
            return batch
        place = [self._seed, batch.epoch, batch.number, rank]
        # Not from the preprocess's draws, which are thus the same for every view.
        draws = np.random.default_rng(np.random.SeedSequence(place, spawn_key=(2,)))
        images, size = batch.images, settings.image_size
        free = settings.side - size + 1
        corners = draws.integers(0, free, (count // 2 if settings.paired else count, 2))
        corners = np.tile(corners, (2, 1)) if settings.paired else corners
        tops, lefts = torch.from_numpy(corners).to(images.device)[:, :, None].unbind(1)
        within = torch.arange(size, device=images.device)
        which = torch.arange(count, device=images.device)[:, None, None]
        # Channels last, as the images are in memory.
        rows = images.permute(0, 2, 3, 1)
        cut = rows[which, (tops + within)[:, :, None], (lefts + within)[:, None, :]]
        return batch._replace(images=cut.permute(0, 3, 1, 2))

    def preprocess(self, batch: Batch, rank: int = 0) -> Preprocessed:
        """Apply the preprocess to a raw batch, with the draws of its epoch and number.

        Args:
            batch: raw images.
            rank: number of this device.
        """
        images = batch.images.float()

        def preprocess(part: Tensor) -> Preprocessed:
            draws = Draws.at(self._seed, batch.epoch, batch.number, rank=rank, device=part.device)
            return self._preprocess(part, draws)

        if not self.settings.paired:
            return preprocess(images)
        # Both halves, and so both images of a pair, get the same draws.
        real, generated = (preprocess(half) for half in images.chunk(2))
        both = {name: strengths.repeat(2) for name, strengths in real.strengths.items()}
        return Preprocessed(torch.cat([real.images, generated.images]), both)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Crop and preprocess a training batch on the device; convert any other to float."""
        if self.trainer is None or not self.trainer.training:
            return batch._replace(images=batch.images.float())
        rank, _ = self._place()
        batch = self.cropped(batch, rank)
        return batch._replace(images=self.preprocess(batch, rank).images)
