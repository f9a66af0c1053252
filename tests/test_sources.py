"""Rows of sources: the images of their folders, in order, and what is rejected of them."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import PREPARATION, SIZE, write_images
from numpy.typing import NDArray
from PIL import Image

from forensics.data.sources import Source
from forensics.errors import UserError
from forensics.images.geometry import ResizeFilter

LENIENT = PREPARATION._replace(max_rejected_share=1.0)


def pixels(paths: list[Path]) -> NDArray[np.uint8]:
    """What the files show, by Pillow alone; they have the rows' size."""
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def is_right(source: Source, folder: Path) -> None:
    """Check rows, order and digests against the folder's files."""
    paths = [p.relative_to(folder).as_posix() for p in folder.rglob("*.png")]
    assert source.paths == sorted(paths)
    np.testing.assert_array_equal(source.rows, pixels([folder / p for p in source.paths]))
    assert len(set(source.digests)) == len(source) == len(paths)


def caches(tmp_path: Path) -> list[Path]:
    """Everything that lies where caches are, but for locks."""
    return [p for p in (tmp_path / "cache").glob("*/*") if p.name != "lock"]


class TestFiles:
    def test_rows_are_the_images_in_the_order_of_their_relative_paths(
        self, folder: Path, opened: Callable[..., Source]
    ) -> None:
        for seed, name in enumerate(["b", "a/z", "a-b", "B", "a"]):
            write_images(folder / name, 2, seed + 1)
        source = opened()
        assert len(source) == 16
        is_right(source, folder)
        assert source.rows.shape == (16, SIZE, SIZE, 3)
        assert source.rows[:].dtype == np.uint8
        assert source.rejected == source.flagged == []

    def test_equal_pixels_have_equal_digests(
        self, folder: Path, opened: Callable[..., Source]
    ) -> None:
        Image.open(folder / "002.png").save(folder / "copy.webp", lossless=True)
        source = opened()
        assert source.digests[-1] == source.digests[2]
        assert len(set(source.digests)) == 6

    def test_larger_images_are_cut_and_resized(
        self, folder: Path, opened: Callable[..., Source]
    ) -> None:
        image = Image.fromarray(np.random.default_rng(9).integers(0, 256, (40, 40, 3), np.uint8))
        image.save(folder / "large.png")
        expected = image.resize((SIZE, SIZE), Image.Resampling.BOX)
        source = opened(PREPARATION._replace(resize_filter=ResizeFilter.box))
        np.testing.assert_array_equal(source.rows[-1], expected)

    @pytest.mark.parametrize(
        "name",
        [
            b"two\nlines.png",
            b"tab\tcolour\x1b[31m.png",
            b'it\'s "so".png',
            "Gesicht ä 顔 \U0001f600.png".encode(),
            b"a=b,c[d]{e}$f*g?.png",
            b"%s %d.png",
        ],
    )
    def test_odd_file_names(
        self,
        folder: Path,
        opened: Callable[..., Source],
        caplog: pytest.LogCaptureFixture,
        name: bytes,
    ) -> None:
        text = os.fsdecode(name)
        shutil.copy(folder / "000.png", folder / text)
        (folder / f"{text}.bad.png").write_bytes(b"")
        opened(LENIENT)
        source = opened(LENIENT)  # from the cache, too
        assert text in source.paths
        assert [path for path, _ in source.rejected] == [f"{text}.bad.png"]
        # No file's name may end a line or steer a terminal.
        assert all(message.isprintable() for message in caplog.messages)
        with pytest.raises(UserError) as caught:
            opened()
        assert str(caught.value).isprintable()

    def test_a_name_that_is_no_text_does_not_end_the_build(
        self, folder: Path, opened: Callable[..., Source]
    ) -> None:
        shutil.copy(folder / "000.png", folder / os.fsdecode(b"\xff\xfe.png"))
        for _ in range(2):
            source = opened(LENIENT)
            assert len(source) + len(source.rejected) == 7
            "".join(source.paths).encode()  # scores and tables hold them


class TestRejected:
    def test_reasons_are_counted(
        self, folder: Path, opened: Callable[..., Source], caplog: pytest.LogCaptureFixture
    ) -> None:
        for side in (3, 4, 5):
            write_images(folder / f"of_{side}", 1, size=side)
        (folder / "page.jpg").write_text("<html></html>")
        opened(LENIENT._replace(min_side=8))
        (message,) = caplog.messages
        assert "(3: each side must have at least 8; 1: neither JPEG, PNG nor WebP" in message

    def test_images_that_may_be_damaged_are_used_counted_and_flagged(
        self, folder: Path, opened: Callable[..., Source], caplog: pytest.LogCaptureFixture
    ) -> None:
        content = (folder / "000.png").read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.save(folder / "000.jpg", quality=90)
        jpeg = (folder / "000.jpg").read_bytes()
        (folder / "000.jpg").write_bytes(jpeg[:-2] + b"\x12\x34" * 20 + jpeg[-2:])
        source = opened(PREPARATION)
        assert "000.jpg" in source.paths
        ((path, flag),) = source.flagged
        assert path == "000.jpg"
        assert flag.startswith("damaged: ")
        (message,) = caplog.messages
        assert "1 of 7 files" in message

    @pytest.fixture
    def half_broken(self, folder: Path) -> Path:
        """Two files that are no images and one without its end, among six that are images."""
        (folder / "001b.png").write_bytes(b"")
        (folder / "sub").mkdir()
        (folder / "sub" / "page.jpg").write_text("<html></html>")
        content = (folder / "000.png").read_bytes()
        (folder / "open.png").write_bytes(content[:-12])
        return folder

    @pytest.mark.usefixtures("half_broken")
    def test_are_left_out_listed_with_their_reasons_and_said(
        self, tmp_path: Path, opened: Callable[..., Source], caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(2):  # when built, and from the cache
            caplog.clear()
            source = opened(LENIENT)
            assert len(source) == len(source.digests) == len(source.rows) == 7
            assert [path for path, _ in source.rejected] == ["001b.png", "sub/page.jpg"]
            assert all("neither JPEG, PNG nor WebP" in reason for _, reason in source.rejected)
            assert source.flagged == [("open.png", "no end mark")]
            (message,) = caplog.messages
            assert "faces: 2 of 9 files left out" in message
            assert "001b.png" in message
            (cache,) = caches(tmp_path)
            assert str(cache / "manifest.parquet") in message
        manifest = pq.read_table(cache / "manifest.parquet").to_pylist()
        assert {f["path"]: f["rejected"] for f in manifest if f["rejected"]} == dict(
            source.rejected
        )
        assert {f["path"] for f in manifest if f["digest"]} == set(source.paths)

    @pytest.mark.usefixtures("half_broken")
    def test_rows_follow_the_accepted_files(
        self, folder: Path, opened: Callable[..., Source]
    ) -> None:
        source = opened(LENIENT)
        np.testing.assert_array_equal(source.rows, pixels([folder / p for p in source.paths]))

    @pytest.mark.usefixtures("half_broken")
    def test_no_larger_share_than_set_may_be_rejected(
        self, folder: Path, opened: Callable[..., Source]
    ) -> None:
        for _ in range(2):
            with pytest.raises(UserError) as caught:
                opened(PREPARATION._replace(max_rejected_share=0.22))
        for part in ("2 of the 9 files", str(folder), "001b.png", "dataset.max_rejected_share"):
            assert part in str(caught.value)
        assert len(opened(PREPARATION._replace(max_rejected_share=2 / 9))) == 7

    def test_a_folder_of_nothing_but_broken_files_is_named(
        self, tmp_path: Path, folder: Path, opened: Callable[..., Source]
    ) -> None:
        for path in folder.iterdir():
            path.write_bytes(b"")
        with pytest.raises(UserError, match=r"None of the 6 files in .*faces can be used.*000"):
            opened(LENIENT)
        assert caches(tmp_path) == []

    def test_a_file_that_the_machine_cannot_read_is_no_broken_image(
        self, opened: Callable[..., Source], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read, shut = Path.open, [True]

        def opening(self: Path, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if self.name == "001.png" and shut:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
            return read(self, *args, **kwargs)

        monkeypatch.setattr(Path, "open", opening)
        with pytest.raises(UserError, match=r"001\.png cannot be read \(Permission denied\)"):
            opened(LENIENT)
        shut.clear()
        assert len(opened(LENIENT)) == 6

    def test_small_images_are_rejected_by_the_setting(self, opened: Callable[..., Source]) -> None:
        with pytest.raises(UserError, match=r"16x16 pixels, each side must have at least 17"):
            opened(LENIENT._replace(min_side=SIZE + 1))
