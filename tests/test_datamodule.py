"""Batches: which images they hold, in which order, and what is done to them in which stage."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import SIZE, write_images
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from forensics.data import datamodule
from forensics.data.datamodule import (
    Batch,
    FaceData,
    OrderedBatches,
    PartImages,
    ShuffledBatches,
)
from forensics.data.opening import open_source
from forensics.data.settings import DatasetSettings
from forensics.data.sources import Preparation
from forensics.data.splits import Part
from forensics.errors import UserError
from forensics.images.geometry import Match, ResizeFilter, View
from forensics.preprocess.base import Draws, Preprocess
from forensics.preprocess.handling import Noise, Per, Untouched

MakeFaces = Callable[..., DatasetSettings]
STAGES = ("train", "validation")


@pytest.fixture
def open_data(tmp_path: Path) -> Callable[..., FaceData]:
    """Set a data set up with batches of 8."""

    def open_(
        settings: DatasetSettings,
        preprocess: Preprocess | None = None,
        batch_size: int = 8,
        seed: int = 0,
    ) -> FaceData:
        data = FaceData(settings, preprocess or Untouched(), batch_size, seed, tmp_path / "cache")
        data.setup()
        return data

    return open_


OpenData = Callable[..., FaceData]


def _loader(data: FaceData, stage: str) -> DataLoader[Batch]:
    loader: DataLoader[Batch] = {
        "train": data.train_dataloader,
        "validation": data.val_dataloader,
    }[stage]()
    return loader


def _part(data: FaceData, stage: str) -> Part:
    return {
        "train": data.split.train,
        "validation": data.split.validation,
        "test": data.split.test,
    }[stage]


def _files(data: FaceData, part: Part) -> Iterator[Path]:
    """The file of each image of a part."""
    root = Path(data.settings.root)
    for position, row in zip(part.source, part.row, strict=True):
        source = data.sources[position]
        yield root / source.name / source.paths[row]


def _raw(data: FaceData, stage: str, positions: Tensor) -> Tensor:
    """Grey levels of images, read from their files by Pillow alone."""
    paths = list(_files(data, _part(data, stage)))
    images = np.stack([np.asarray(Image.open(paths[position])) for position in positions])
    return torch.from_numpy(images).permute(0, 3, 1, 2)


class TestShuffledBatches:
    @pytest.mark.parametrize(("count", "batch_size"), [(40, 8), (47, 8), (8, 8), (7, 8), (5, 1)])
    def test_full_batches_of_every_image_at_most_once(self, count: int, batch_size: int) -> None:
        places = list(batches := ShuffledBatches(np.arange(count)[:, None], batch_size, 0, 0, 1))
        assert len(places) == len(batches) == count // batch_size
        assert [place.number for place in places] == list(range(len(places)))
        assert all(len(place.positions) == batch_size for place in places)
        positions = [position for place in places for position in place.positions]
        assert len(set(positions)) == len(positions)
        assert set(positions) <= set(range(count))

    def test_order_is_a_function_of_seed_and_epoch(self) -> None:
        def order(seed: int, epoch: int) -> tuple[int, ...]:
            batches = ShuffledBatches(np.arange(40)[:, None], 8, seed, 0, 1)
            batches.set_epoch(epoch)
            places = list(batches)
            assert all(place.epoch == epoch for place in places)
            return tuple(np.concatenate([place.positions for place in places]).tolist())

        orders = {(seed, epoch): order(seed, epoch) for seed in range(3) for epoch in range(3)}
        assert len(set(orders.values())) == len(orders)
        for place, expected in reversed(orders.items()):
            np.random.seed(1)
            assert order(*place) == expected

    def test_what_is_left_over_changes_from_epoch_to_epoch(self) -> None:
        batches = ShuffledBatches(np.arange(9)[:, None], 8, 0, 0, 1)
        trained = set()
        for epoch in range(10):
            batches.set_epoch(epoch)
            trained |= {position for place in batches for position in place.positions}
        assert trained == set(range(9))

    @pytest.mark.parametrize("devices", [1, 2])
    def test_a_group_comes_in_one_batch_first_members_first(self, devices: int) -> None:
        groups = np.arange(40).reshape(20, 2)
        seen = []
        for rank in range(devices):
            for place in ShuffledBatches(groups, 8, 0, rank, devices):
                first, second = place.positions.reshape(2, -1)
                assert len(first) == 4 // devices
                np.testing.assert_array_equal(first + 1, second)
                assert not (first % 2).any()
                seen += place.positions.tolist()
        assert sorted(seen) == list(range(40))

    @pytest.mark.parametrize("devices", [2, 4])
    def test_devices_share_the_batch_of_one_device(self, devices: int) -> None:
        whole = ShuffledBatches(np.arange(47)[:, None], 8, 3, 0, 1)
        ranks = [
            ShuffledBatches(np.arange(47)[:, None], 8, 3, rank, devices) for rank in range(devices)
        ]
        for batches in (whole, *ranks):
            batches.set_epoch(2)
        for expected, *shares in zip(whole, *ranks, strict=True):
            assert {(share.epoch, share.number) for share in shares} == {expected[:2]}
            assert {len(share.positions) for share in shares} == {8 // devices}
            together = np.concatenate([share.positions for share in shares])
            assert sorted(together) == sorted(expected.positions)


class TestOrderedBatches:
    @pytest.mark.parametrize("devices", [1, 2, 3, 4])
    @pytest.mark.parametrize(
        ("count", "batch_size"), [(48, 12), (49, 12), (47, 12), (13, 12), (7, 12), (4, 12)]
    )
    def test_every_image_once_in_order_over_all_devices(
        self, count: int, batch_size: int, devices: int
    ) -> None:
        positions: list[int] = []
        numbers = set()
        for rank in range(devices):
            places = list(batches := OrderedBatches(count, batch_size, rank, devices))
            assert len(places) == len(batches)
            assert [place[:2] for place in places] == [(0, n) for n in range(len(places))]
            numbers.add(len(places))
            lengths = [len(place.positions) for place in places]
            assert max(lengths) <= batch_size // devices + 1
            assert 0 < max(lengths) <= min(lengths) + 1
            own = [position for place in places for position in place.positions.tolist()]
            assert own == sorted(own)
            positions += own
        assert sorted(positions) == list(range(count))
        # None waits for another in a batch that this one does not have.
        assert len(numbers) == 1

    def test_more_devices_than_images_are_refused(self) -> None:
        with pytest.raises(UserError, match="4 devices are more than the 3 images"):
            OrderedBatches(3, 8, 0, 4)


class TestBatches:
    @pytest.mark.parametrize("stage", STAGES)
    def test_images_are_the_files_and_labels_their_folders(
        self, faces: MakeFaces, open_data: OpenData, stage: str
    ) -> None:
        data = open_data(faces((33, 31, 7)))
        names = [path.parent.name for path in _files(data, _part(data, stage))]
        seen = 0
        for batch in _loader(data, stage):
            assert batch.images.dtype == torch.uint8
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(batch.images, _raw(data, stage, batch.positions))
            assert batch.labels.dtype == torch.float32
            expected = [float(names[position] == "real") for position in batch.positions]
            assert batch.labels.tolist() == expected
            seen += len(batch.labels)
        assert seen == len(names) - (len(names) % 8 if stage == "train" else 0)

    @pytest.mark.parametrize("stage", STAGES)
    def test_matched_images_are_the_files_compressed_once_more(
        self, faces: MakeFaces, open_data: OpenData, stage: str, tmp_path: Path
    ) -> None:
        plain, data = open_data(faces()), open_data(faces(match=Match.jpeg))
        for batch in _loader(data, stage):
            for image, position in zip(batch.images, batch.positions.tolist(), strict=True):
                path = list(_files(data, _part(data, stage)))[position]
                Image.open(path).save(tmp_path / "again.jpg", quality=75)
                expected = np.asarray(Image.open(tmp_path / "again.jpg"))
                np.testing.assert_array_equal(image.permute(1, 2, 0), expected)
        # Another cache, and the same images in the same parts.
        assert plain.sources[0].paths == data.sources[0].paths
        assert plain.sources[0].digests != data.sources[0].digests
        np.testing.assert_array_equal(_part(plain, stage).row, _part(data, stage).row)

    def test_several_real_sources_are_all_real(
        self, faces: MakeFaces, open_data: OpenData, tmp_path: Path
    ) -> None:
        settings = faces((30, 30, 10))
        write_images(tmp_path / "elsewhere", 30, seed=5)
        settings = dataclasses.replace(
            settings, real=["real", "more"], folders={"more": str(tmp_path / "elsewhere")}
        )
        data = open_data(settings)
        assert [source.name for source in data.sources] == ["real", "more", "seen", "unseen"]
        part = data.split.validation
        labels = torch.cat([batch.labels for batch in data.val_dataloader()])
        assert labels.tolist() == (part.source < 2).astype(float).tolist()

    def test_a_batch_larger_than_the_training_images_is_refused(
        self, faces: MakeFaces, open_data: OpenData
    ) -> None:
        settings = faces()  # of 20 of each class, 16 train
        assert len(open_data(settings, batch_size=32).train_dataloader()) == 1
        with pytest.raises(UserError, match=r"batch_size=33 is more than the 32 training images"):
            open_data(settings, batch_size=33)

    def test_a_missing_source_is_named(self, faces: MakeFaces, open_data: OpenData) -> None:
        settings = faces()
        shutil.rmtree(Path(settings.root) / "unseen")
        missing = re.escape(str(Path(settings.root) / "unseen"))
        with pytest.raises(UserError, match=rf"no folder {missing} .* dataset\.root"):
            open_data(settings)

    def test_toy_sources_are_rendered_with_what_their_roles_need(
        self, faces: MakeFaces, open_data: OpenData, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[Path, dict[str, int]]] = []
        monkeypatch.setattr(datamodule, "build_demo", lambda *given: asked.append(given))
        settings = faces(toy=True)
        open_data(settings)
        counts = {"real": 30, "seen": 30, "unseen": 10}
        assert asked == [(Path(settings.root), counts)]

    def test_further_setups_do_nothing(self, faces: MakeFaces, open_data: OpenData) -> None:
        data = open_data(faces())
        sources, split = data.sources, data.split
        data.setup("validate")
        assert data.sources is sources
        assert data.split is split

    @pytest.mark.parametrize("part", ["train", "validation", "test"])
    def test_a_changed_image_of_any_part_is_told_by_its_source(
        self, faces: MakeFaces, open_data: OpenData, part: str
    ) -> None:
        settings = faces()
        state = open_data(settings).state_dict()
        data = open_data(settings)
        data.load_state_dict(state)
        path = next(path for path in _files(data, _part(data, part)) if path.parent.name == "seen")
        Image.new("RGB", (SIZE, SIZE), "red").save(path)
        with pytest.raises(UserError, match="images of seen"):
            open_data(settings).load_state_dict(state)


@dataclasses.dataclass
class Seen:
    """Batches as a module's steps got them, by step."""

    train: list[Batch] = dataclasses.field(default_factory=list)
    validation: list[Batch] = dataclasses.field(default_factory=list)
    test: list[Batch] = dataclasses.field(default_factory=list)
    predict: list[Batch] = dataclasses.field(default_factory=list)


class _Recorder(pl.LightningModule):
    """Learns nothing, keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = Seen()

    def training_step(self, batch: Batch) -> Tensor:
        self.seen.train.append(batch)
        return self.weight * 1.0

    def validation_step(self, batch: Batch) -> None:
        self.seen.validation.append(batch)

    def test_step(self, batch: Batch) -> None:
        self.seen.test.append(batch)

    def predict_step(self, batch: Batch) -> Tensor:
        self.seen.predict.append(batch)
        return batch.labels

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1.0)


class _PredictingData(FaceData):
    def predict_dataloader(self) -> DataLoader[Batch]:
        return self.val_dataloader()


def _trainer() -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        num_sanity_val_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


# What Lightning says to everyone; `forensics.training.trainer` gives the reasons.
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.")
class TestStages:
    def test_only_training_batches_are_preprocessed(self, faces: MakeFaces, tmp_path: Path) -> None:
        operator = Noise(50.0, Per.image)
        data = _PredictingData(faces((33, 31, 7)), operator, 8, 3, tmp_path / "cache")
        module, trainer = _Recorder(), _trainer()
        trainer.fit(module, data)
        trainer.predict(module, data, return_predictions=False)
        seen = module.seen
        places = [(batch.epoch, batch.number) for batch in seen.train]
        assert places == [(epoch, number) for epoch in range(2) for number in range(4)]
        first, second = (torch.cat([b.positions for b in seen.train[i : i + 4]]) for i in (0, 4))
        assert not torch.equal(first, second)
        for batch in seen.train:
            raw = _raw(data, "train", batch.positions).float()
            expected = operator(raw, Draws.at(3, batch.epoch, batch.number)).images
            assert torch.equal(batch.images, expected)
            assert not torch.equal(batch.images, raw)
        untouched = [("validation", b) for b in seen.validation]
        untouched += [("validation", batch) for batch in seen.predict]
        for stage, batch in untouched:
            assert torch.equal(batch.images, _raw(data, stage, batch.positions).float())
        for batch in (*seen.train, *(batch for _, batch in untouched)):
            assert batch.images.dtype == torch.float32
            assert 0 <= batch.images.min() < 13
            assert 242 < batch.images.max() <= 255
        # One batch before the training, then the complete part after each epoch.
        assert len(seen.validation) == 1 + 2 * len(data.val_dataloader())
        assert len(seen.predict) == len(data.val_dataloader())

    def test_no_tested_pixels_ever_reach_a_fit(self, faces: MakeFaces, open_data: OpenData) -> None:
        settings = faces((33, 31, 12))
        root = Path(settings.root)
        # Copies across every border that there is.
        shutil.copy(root / "real" / "032.png", root / "real" / "000.png")
        shutil.copy(root / "unseen" / "011.png", root / "seen" / "003.png")
        shutil.copy(root / "seen" / "030.png", root / "real" / "007.png")
        data, module = open_data(settings), _Recorder()
        _trainer().fit(module, data)
        fitted = set()
        for batch in (*module.seen.train, *module.seen.validation):
            images = batch.images.round().to(torch.uint8)
            fitted |= {image.permute(1, 2, 0).numpy().tobytes() for image in images}
        files = {
            path: np.asarray(Image.open(path)).tobytes() for path in sorted(root.rglob("*.png"))
        }
        tested = {files[path] for path in _files(data, data.split.test)}
        assert len(tested) == 30
        assert len(fitted) >= 32
        assert fitted <= set(files.values())
        assert not fitted & tested

    @pytest.mark.parametrize("per", Per)
    def test_both_images_of_a_pair_get_the_same_draws(
        self, faces: MakeFaces, tmp_path: Path, per: Per
    ) -> None:
        settings = faces(paired=True)
        noise = Noise(max_std_grey_levels=20.0, per=per)
        data = FaceData(settings, noise, 8, 0, tmp_path / "cache")
        data.setup()
        for raw in data.train_dataloader():
            grey = torch.full((1, *raw.images.shape[1:]), 128, dtype=torch.uint8)
            batch = raw._replace(images=grey.repeat(8, 1, 1, 1))
            done = data.preprocess(batch)
            assert raw.labels.tolist() == [1.0] * 4 + [0.0] * 4
            assert torch.equal(done.images[:4], done.images[4:])
            assert torch.equal(done.strengths["std_grey_levels"][:4],
                               done.strengths["std_grey_levels"][4:])  # fmt: skip
            assert not torch.equal(done.images[0], done.images[1])

    @pytest.mark.parametrize("paired", [False, True])
    def test_training_takes_random_crops_of_native_pixels(
        self, faces: MakeFaces, open_data: OpenData, paired: bool
    ) -> None:
        settings = faces(view=View.crop, crop_size=SIZE, image_size=9, paired=paired)
        data = open_data(settings)
        data.trainer = SimpleNamespace(  # type: ignore[assignment]
            global_rank=0, world_size=1, training=True
        )
        seen = set()
        for raw in data.train_dataloader():
            assert raw.images.shape == (8, 3, SIZE, SIZE)
            crops = data.on_after_batch_transfer(raw, 0).images
            assert crops.shape == (8, 3, 9, 9)
            assert crops.is_contiguous(memory_format=torch.channels_last)
            places = [
                [
                    (top, left)
                    for top in range(SIZE - 8)
                    for left in range(SIZE - 8)
                    if torch.equal(image[:, top : top + 9, left : left + 9].float(), crop)
                ]
                for image, crop in zip(raw.images, crops, strict=True)
            ]
            assert all(len(found) == 1 for found in places)
            assert not paired or places[:4] == places[4:]
            seen |= {found[0] for found in places}
            again = data.cropped(raw).images
            assert torch.equal(again, crops.byte())
            other = data.cropped(raw._replace(number=raw.number + 1)).images
            assert not torch.equal(again, other)
        assert {top for top, _ in seen} | {left for _, left in seen} == set(range(8))

    def test_crops_are_those_of_earlier_versions(
        self, faces: MakeFaces, open_data: OpenData
    ) -> None:
        data = open_data(faces(view=View.crop, crop_size=SIZE, image_size=9))
        data.trainer = SimpleNamespace(  # type: ignore[assignment]
            global_rank=0, world_size=1, training=True
        )
        raw = next(iter(data.train_dataloader()))
        tops = torch.arange(SIZE, dtype=torch.uint8)[:, None].expand(SIZE, SIZE)
        images = torch.stack([tops, tops.T, tops]).repeat(len(raw.images), 1, 1, 1)
        crops = data.cropped(raw._replace(images=images, epoch=3, number=7)).images
        # So that a run goes on as it began.
        corners = [[4, 7], [6, 3], [4, 4], [3, 0], [4, 6], [4, 6], [3, 2], [1, 5]]
        assert crops[:, :2, 0, 0].tolist() == corners

    def test_validation_gets_the_full_square(self, faces: MakeFaces, open_data: OpenData) -> None:
        data = open_data(faces(view=View.crop, crop_size=SIZE, image_size=9))
        data.trainer = SimpleNamespace(  # type: ignore[assignment]
            global_rank=0, world_size=1, training=False
        )
        batch = next(iter(data.val_dataloader()))
        assert torch.equal(data.on_after_batch_transfer(batch, 0).images, batch.images.float())

    def test_an_image_smaller_than_the_crop_is_rejected(
        self, faces: MakeFaces, open_data: OpenData
    ) -> None:
        settings = faces(view=View.crop, crop_size=SIZE + 1)
        with pytest.raises(UserError, match=f"at least {SIZE + 1}"):
            open_data(settings)
        Image.new("RGB", (40, 40)).save(Path(settings.root) / "real" / "000.png")
        with pytest.raises(UserError, match="29 of the 30 files"):
            open_data(settings)

    @pytest.mark.parametrize(
        ("view", "crop_size"), [(View.crop, None), (View.crop, SIZE - 1), (View.resize, SIZE)]
    )
    def test_a_crop_size_that_does_not_fit_the_view_is_refused(
        self, faces: MakeFaces, view: View, crop_size: int | None
    ) -> None:
        with pytest.raises(UserError) as raised:
            faces(view=view, crop_size=crop_size)
        assert raised.value.key == "dataset.crop_size"

    def test_without_a_trainer_nothing_is_preprocessed(
        self, faces: MakeFaces, open_data: OpenData
    ) -> None:
        data = open_data(faces(), Noise(50.0, Per.image))
        batch = next(iter(data.train_dataloader()))
        result = data.on_after_batch_transfer(batch, 0).images
        assert torch.equal(result, batch.images.float())

    def test_two_devices_train_on_the_batches_of_one(
        self, faces: MakeFaces, open_data: OpenData
    ) -> None:
        operator = Noise(50.0, Per.batch)
        data = open_data(faces(), operator)
        whole = list(data.train_dataloader())
        ranks = []
        for rank in range(2):
            stub = SimpleNamespace(global_rank=rank, world_size=2, training=True)
            data.trainer = stub  # type: ignore[assignment]
            shares = list(data.train_dataloader())
            for share in shares:
                raw = _raw(data, "train", share.positions).float()
                draws = Draws.at(0, share.epoch, share.number, rank=rank)
                expected = operator(raw, draws).images
                assert torch.equal(data.on_after_batch_transfer(share, 0).images, expected)
            ranks.append(shares)
        for batch, *halves in zip(whole, *ranks, strict=True):
            together = torch.cat([half.positions for half in halves])
            assert together.sort().values.tolist() == batch.positions.sort().values.tolist()


def _mapped_bytes() -> int:
    """Resident memory that files are mapped to."""
    status = Path("/proc/self/status").read_text()
    match = re.search(r"RssFile:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024


class TestMemory:
    @pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="Linux says how much is mapped"
    )
    def test_resident_memory_does_not_grow_with_what_was_read(self, tmp_path: Path) -> None:
        count, size = 256, 256
        folder = tmp_path / "flat"
        folder.mkdir()
        for number in range(count):
            Image.new("RGB", (size, size), (number, 0, 0)).save(folder / f"{number:03d}.png")
        preparation = Preparation(size, ResizeFilter.lanczos, size, 0.0)
        source = open_source("flat", folder, preparation, tmp_path / "cache")
        part = Part(np.zeros(count, np.int64), np.arange(count))
        images = PartImages(part, [source], 1)
        source.forget_pages()
        before = _mapped_bytes()
        peak = 0
        for place in OrderedBatches(count, 4, 0, 1):
            batch = images[place]
            assert batch.images[:, 0, -1, -1].tolist() == place.positions.tolist()
            peak = max(peak, _mapped_bytes() - before)
        whole = source.rows[:].nbytes
        assert whole == 48 * 2**20
        # A batch's rows and the pages around them, at most.
        assert peak < whole / 6
        # The measure would have seen it: whoever maps the rows and forgets none, grows.
        assert int(source.rows[:, ::16].sum(dtype=np.int64)) > 0
        assert _mapped_bytes() - before > 0.9 * whole

    def test_forgotten_rows_can_be_read_again(self, tmp_path: Path) -> None:
        paths = write_images(tmp_path / "faces", 4)
        preparation = Preparation(SIZE, ResizeFilter.lanczos, SIZE, 0.0)
        source = open_source("faces", tmp_path / "faces", preparation, tmp_path / "cache")
        expected = np.stack([np.asarray(Image.open(path)) for path in paths])
        for _ in range(2):
            np.testing.assert_array_equal(source.rows, expected)
            source.forget_pages()
