"""Prepared images in object storage: the local cache's, in the same order, or one sentence."""

from __future__ import annotations

import errno
import itertools
import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from conftest import SIZE, dying_train, names_decoded, started, write_images

from forensics.data import shards, sources
from forensics.data.datamodule import Batch, FaceData
from forensics.data.opening import open_source
from forensics.data.settings import DatasetSettings
from forensics.data.shards import is_uri
from forensics.data.sources import Needed, Preparation, Source
from forensics.errors import UserError
from forensics.evaluation.audit import audit_run
from forensics.images.geometry import ResizeFilter
from forensics.images.listing import PROVENANCE
from forensics.preprocess.handling import Untouched
from forensics.progress import Progress
from forensics.training.settings import AuditMode

ROOT = Path(__file__).parents[1]
PREPARATION = Preparation(SIZE, ResizeFilter.lanczos, SIZE, 1.0)
COUNT = 10

Open = Callable[..., Source]


@pytest.fixture
def lance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of three rows."""
    pytest.importorskip("lance", reason="needs the extra shards")
    monkeypatch.setattr(shards, "_ROWS_IN_SHARD", 3)


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"file://{tmp_path}/storage"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images, the second one unreadable."""
    write_images(tmp_path / "faces", COUNT)
    (tmp_path / "faces/001.png").write_text("no image")
    return tmp_path / "faces"


@pytest.fixture
def opened(folder: Path, storage: str) -> Open:
    """Open the folder as a source in object storage."""

    def open_(
        needed: Needed | None = None,
        cache_dir: Path | str = storage,
        **changes: Any,  # noqa: ANN401
    ) -> Source:
        preparation = PREPARATION._replace(**changes)
        return open_source("faces", folder, preparation, cache_dir, needed)

    return open_


def data_set(tmp_path: Path) -> Path:
    """The folder of the data set."""
    (found,) = (tmp_path / "storage").glob("faces-*.lance")
    return found


def shard_of(tmp_path: Path, row: int) -> Path:
    """The file with a row of the data set."""
    lance = pytest.importorskip("lance")
    fragment = lance.dataset(str(data_set(tmp_path))).get_fragments()[row // 3]
    return data_set(tmp_path) / "data" / str(fragment.data_files()[0].path)


@pytest.mark.usefixtures("lance")
class TestRows:
    def test_are_those_of_the_local_cache(self, opened: Open, tmp_path: Path) -> None:
        local = opened(cache_dir=tmp_path / "cache")
        for source in (opened(), opened()):  # written, then read
            assert source.rows.shape == local.rows.shape == (COUNT - 1, SIZE, SIZE, 3)
            np.testing.assert_array_equal(source.rows[:], local.rows[:])
            for name in ("paths", "digests", "sha256", "originals", "files", "rejected", "flagged"):
                assert getattr(source, name) == getattr(local, name)
            np.testing.assert_array_equal(source.hashes, local.hashes)
        assert len(list((data_set(tmp_path) / "data").iterdir())) == 4  # 10 files in threes

    @pytest.mark.parametrize(
        "rows", [0, -1, slice(2, 7), [8, 0, 4, 4], [], [True] + 8 * [False]], ids=str
    )
    def test_are_indexed_like_an_array(
        self,
        opened: Open,
        tmp_path: Path,
        rows: Any,  # noqa: ANN401
    ) -> None:
        wanted = np.array(rows, bool if True in rows else int) if isinstance(rows, list) else rows
        expected = opened(cache_dir=tmp_path / "cache").rows[wanted]
        found = opened().rows[wanted]
        assert (found.dtype, found.shape) == (np.uint8, expected.shape)
        np.testing.assert_array_equal(found, expected)

    def test_need_no_folder_once_they_are_there(
        self, opened: Open, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / PROVENANCE).write_text(json.dumps({"made_from": {"002.png": {"sha256": "ab"}}}))
        first = opened()
        expected = first.rows[:]
        shutil.rmtree(folder)
        decoded = names_decoded(monkeypatch, sources)
        source = opened()
        np.testing.assert_array_equal(source.rows[:], expected)
        assert source.originals == first.originals == [None, "ab", *(COUNT - 3) * [None]]
        assert decoded == []

    def test_are_extended_if_too_few(self, opened: Open, tmp_path: Path) -> None:
        assert opened(Needed(2, 3)).paths == [f"{n:03d}.png" for n in (0, 2, 7, 8, 9)]
        assert len(opened(Needed(1, 3))) == 5
        local = opened(cache_dir=tmp_path / "cache")
        earlier = opened(Needed(2, 3))
        assert len(opened(Needed(4, 1))) == 7  # still the last three
        np.testing.assert_array_equal(opened().rows[:], local.rows[:])
        np.testing.assert_array_equal(earlier.rows[:], local.rows[[0, 1, 6, 7, 8]])

    def test_of_each_preparation_are_a_data_set(self, opened: Open, tmp_path: Path) -> None:
        opened()
        opened(min_side=SIZE - 1)
        assert len(list((tmp_path / "storage").iterdir())) == 2

    def test_may_be_none(self, opened: Open, folder: Path) -> None:
        (folder / "001.png").unlink()
        source = opened(min_side=2 * SIZE, may_be_small=True, max_rejected_share=1.0)
        assert source.rows[:].shape == (0, SIZE, SIZE, 3)

    def test_are_written_whole_after_an_interruption(
        self, opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        written = itertools.count()

        def full(_: Progress, items: int = 1) -> None:
            if next(written) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(shards, "_WRITTEN_AT_ONCE", 3)
            patched.setattr(sources, "Progress", MagicMock())
            patched.setattr(Progress, "advance", full)
            with pytest.raises(UserError, match="No space left"):
                opened()
        assert len(opened()) == COUNT - 1


@pytest.mark.usefixtures("lance")
class TestErrors:
    def damaged(self, opened: Open, tmp_path: Path, change: Callable[[Path], Any]) -> str:
        """What is said of a shard that was changed after its source was opened."""
        source = opened()
        shard = shard_of(tmp_path, 4)
        change(shard)
        assert source.rows[[0, 1, 7, 8]].any()  # rows of other shards
        with pytest.raises(UserError) as caught:
            source.rows[[0, 3, 8]]
        said = str(caught.value)
        assert shard.name in said
        assert "faces" in said
        assert "\n" not in said
        assert ".rs:" not in said
        return said

    def test_a_missing_shard_is_named(self, opened: Open, tmp_path: Path) -> None:
        self.damaged(opened, tmp_path, Path.unlink)
        with pytest.raises(UserError, match=r"data/\w+\.lance"):
            opened()

    @pytest.mark.parametrize("kept", [0, 100, -100], ids=str)
    def test_a_shortened_shard_is_named(self, opened: Open, tmp_path: Path, kept: int) -> None:
        self.damaged(opened, tmp_path, lambda at: at.write_bytes(at.read_bytes()[:kept]))

    def test_a_changed_pixel_is_found(self, opened: Open, folder: Path, tmp_path: Path) -> None:
        row = opened(cache_dir=tmp_path / "cache").rows[3].tobytes()

        def change(shard: Path) -> None:
            content = bytearray(shard.read_bytes())
            content[content.index(row) + 100] ^= 1
            shard.write_bytes(content)

        assert "digest" in self.damaged(opened, tmp_path, change)

    def test_other_files_than_the_folder_has(self, opened: Open, folder: Path) -> None:
        opened()
        write_images(folder / "more", 1)
        with pytest.raises(UserError, match="other files") as caught:
            opened()
        assert caught.value.key == "cache_dir"

    def test_neither_folder_nor_rows(self, opened: Open, folder: Path, tmp_path: Path) -> None:
        opened(Needed(2, 3))
        shutil.rmtree(folder)
        assert len(opened(Needed(2, 3))) == 5
        with pytest.raises(UserError, match="first 2 and last 3") as caught:
            opened(Needed(3, 3))
        assert caught.value.key == "cache_dir"
        with pytest.raises(UserError, match="no prepared images"):
            opened(min_side=1)

    @pytest.mark.parametrize("uri", ["nowhere://bucket/x", "file:///proc/x"])
    def test_a_storage_that_is_none(self, opened: Open, uri: str) -> None:
        with pytest.raises(UserError, match=uri) as caught:
            opened(cache_dir=uri)
        assert caught.value.key == "cache_dir"


def test_without_lance_says_what_to_install(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(UserError, match=r"\.\[shards\]") as caught:
        opened()
    assert caught.value.key == "cache_dir"


def test_uris_are_no_paths() -> None:
    assert all(is_uri(uri) for uri in ("s3://bucket/x", "file:///x", "shared-memory://x"))
    assert not any(is_uri(path) for path in ("outputs/cache", "/x:/y", Path("/x"), ""))


def batches(data: FaceData, stage: str, epoch: int) -> list[Batch]:
    """The batches of an epoch, as the trainer reads them."""
    loader = getattr(data, f"{stage}_dataloader")()
    if stage == "train":
        loader.sampler.set_epoch(epoch)
    return list(loader)


@pytest.mark.usefixtures("lance")
class TestBatches:
    @pytest.fixture
    def both(
        self, faces: Callable[..., DatasetSettings], tmp_path: Path, storage: str
    ) -> Callable[..., list[FaceData]]:
        """Set data up from a local cache, and from shards without the images."""

        def both(**changes: object) -> list[FaceData]:
            settings = faces(**changes)
            made = []
            for cache_dir in (tmp_path / "cache", storage, storage):
                made.append(FaceData(settings, Untouched(), 8, 0, cache_dir))
                made[-1].setup()
                if len(made) == 2:
                    shutil.rmtree(settings.root)
            return made

        return both

    @pytest.mark.parametrize("stage", ["train", "val"])
    def test_are_those_of_the_local_cache_in_every_epoch(
        self, both: Callable[..., list[FaceData]], stage: str
    ) -> None:
        local, *stored = both()
        for epoch in range(3):
            expected = batches(local, stage, epoch)
            assert len(expected) == {"train": 4, "val": 1}[stage]
            for data in stored:
                for one, other in zip(batches(data, stage, epoch), expected, strict=True):
                    assert torch.equal(one.images, other.images)
                    assert torch.equal(one.labels, other.labels)
                    assert torch.equal(one.positions, other.positions)
                    assert one[3:] == other[3:]
        assert stored[1].state_dict() == local.state_dict()

    def test_cannot_be_audited_without_the_images(
        self, both: Callable[..., list[FaceData]]
    ) -> None:
        data = both()[-1]
        assert audit_run(data, AuditMode.off, 0) is None
        with pytest.raises(UserError, match="audit=off") as caught:
            audit_run(data, AuditMode.warn, 0)
        assert caught.value.key == "audit"

    def test_a_damaged_shard_ends_an_epoch_with_its_name(
        self, both: Callable[..., list[FaceData]], tmp_path: Path
    ) -> None:
        data = both()[-1]
        for shard in (tmp_path / "storage").glob("seen-*.lance/data/*"):
            shard.write_bytes(b"")
        with pytest.raises(UserError, match=r"seen-\w+\.lance/data/\w+\.lance"):
            list(data.train_dataloader())


def test_generators_are_trained_from_a_local_folder(
    run_program: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_program(ROOT / "generate.py", "cache_dir=s3://bucket/prepared") == 1
    assert "cache_dir must be a local folder" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("lance", "undrawn")
def test_killed_in_mid_epoch_and_resumed_without_images_ends_with_the_weights_of_a_local_run(
    arguments: list[str], run_program: Callable[..., int], tmp_path: Path, storage: str
) -> None:
    train = ROOT / "train.py"
    chosen = [*arguments, "max_epochs=4", "preprocess=blur_noise", "audit=off"]
    assert run_program(train, *chosen, "name=local") == 0
    process = started(dying_train(tmp_path), *chosen, f"cache_dir={storage}", "name=killed")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    shutil.rmtree(tmp_path / "faces")
    assert run_program(train, "resume=outputs/killed") == 0

    outputs = tmp_path / "outputs"
    ends = [
        torch.load(outputs / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("local", "killed")
    ]
    assert ends[0].keys() == ends[1].keys()
    for name, weights in ends[0].items():
        assert torch.equal(weights, ends[1][name]), name
    results = [
        json.loads((outputs / name / "result.json").read_text()) for name in ("local", "killed")
    ]
    for key in ("pairs", "test_hashes", "images"):
        assert results[0][key] == results[1][key]
