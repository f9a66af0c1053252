"""Opening of sources: what their folders offer, and the cache of rows, complete or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import PREPARATION, SIZE, names_decoded, write_images
from test_sources import LENIENT, caches, is_right, pixels

from forensics.data import opening, sources
from forensics.data.opening import open_source, open_sources
from forensics.data.sources import Needed, Preparation, Source
from forensics.errors import UserError
from forensics.images.decode import decode
from forensics.images.geometry import ResizeFilter
from forensics.images.listing import ImageFile, Listing, list_images

ROOT = Path(__file__).parent.parent


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded from here on."""
    return names_decoded(monkeypatch, sources)


class TestFolders:
    def test_content_decides_and_what_is_passed_over_is_counted(
        self,
        tmp_path: Path,
        folder: Path,
        opened: Callable[..., Source],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        outside = write_images(tmp_path / "outside", 2, seed=1)
        (folder / "link.png").symlink_to(outside[0])
        (folder / "folder").symlink_to(tmp_path / "outside")
        (folder / "loop").symlink_to(folder)
        (folder / "broken.png").symlink_to(folder / "nowhere.png")
        write_images(folder / ".hidden", 1)
        images = ["a", "b.jpg_large", "c.JFIF", "d.png.part", "e.HEIC"]
        for name in (".hidden.png", "._f.png", "Thumbs.db", "__MACOSX", *images):
            shutil.copy(outside[0], folder / name)
        (folder / "photo").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
        (folder / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(200))
        (folder / "notes.txt").write_text("no image")
        for record in ("source.json", "manifest.parquet"):  # of this project
            (folder / record).write_text("{}")
        with caplog.at_level("INFO"):
            source = opened()
        assert source.paths == [*(f"{number:03d}.png" for number in range(6)), *images]
        (said,) = (message for message in caplog.messages if "passed over" in message)
        assert said.startswith("faces: 12 files passed over: 4 links, ")
        for count in (
            "2 hidden files", "3 macOS or Windows system files", "1 HEIC", "1 video", "1 other file"
        ):  # fmt: skip
            assert count in said

    @pytest.mark.parametrize(
        ("real", "generated"),
        [
            ("0_real", "1_fake"),
            ("real", "fake"),
            ("REAL", "FAKE"),
            ("nature", "ai"),
            ("original", "manipulated"),
            ("val/nature", "val/ai"),
            ("car/0_real", "horse/1_fake"),
            ("real_train", "fake_test"),
            ("celeb-real", "celeb-synthesis"),
            ("RealArt", "AiArtData"),
            ("test/original", "test/Deepfakes"),
        ],
    )
    def test_folders_of_both_classes_are_refused_by_their_names(
        self, folder: Path, opened: Callable[..., Source], real: str, generated: str
    ) -> None:
        write_images(folder / generated, 2, seed=1)
        assert len(opened()) == 8
        write_images(folder / real, 2, seed=2)
        with pytest.raises(UserError) as caught:
            opened()
        assert caught.value.key == str(folder)
        for class_ in (real, generated):
            assert f"dataset.folders.faces={folder}/{class_} " in str(caught.value)
            assert f"--only {class_.rpartition('/')[2]}" in str(caught.value)

    @pytest.mark.parametrize("names", [("real", "real_madrid"), ("fake", "smile"), ("1", "0")])
    def test_other_folders_are_not(
        self, folder: Path, opened: Callable[..., Source], names: tuple[str, str]
    ) -> None:
        for seed, name in enumerate(names):
            write_images(folder / name, 2, seed + 1)
        assert len(opened()) == 10

    @pytest.mark.parametrize("inner", ["", "within", "link"])
    def test_one_folder_for_two_sources_is_refused(
        self, tmp_path: Path, folder: Path, inner: str
    ) -> None:
        write_images(folder / "within", 2, seed=1)
        (tmp_path / "link").symlink_to(folder)
        other = tmp_path / "link" if inner == "link" else folder / inner
        folders = {"real": folder, "pggan": other}
        with pytest.raises(UserError) as caught:
            open_sources(folders, PREPARATION, tmp_path / "cache")
        assert caught.value.key in folders
        assert "real" in str(caught.value)
        assert "pggan" in str(caught.value)

    @pytest.mark.parametrize("text", ["{", '{"made_from": {"000.png": 3}}', '{"made_from": [1]}'])
    def test_a_broken_record_of_originals_is_named(
        self, folder: Path, opened: Callable[..., Source], text: str
    ) -> None:
        # Passing over it could let images made from test images train.
        (folder / "source.json").write_text(text)
        with pytest.raises(UserError) as raised:
            opened()
        assert raised.value.key == str(folder / "source.json")

    def test_originals_are_those_of_the_record(
        self, folder: Path, opened: Callable[..., Source]
    ) -> None:
        assert opened().originals is None
        (folder / "source.json").write_text('{"made_from": {"002.png": {"sha256": "ab"}}}')
        assert opened().originals == [None, None, "ab", None, None, None]
        (folder / "source.json").write_text('["of another program"]')
        source = opened()
        assert source.originals is None
        digests = [
            hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in source.paths
        ]
        assert source.sha256 == digests

    def test_suffixes_count_in_either_case(
        self, folder: Path, opened: Callable[..., Source]
    ) -> None:
        for suffix in ("JPG", "jpeg", "Png", "WEBP"):
            shutil.copy(folder / "000.png", folder / f"x.{suffix}")
        assert len(opened()) == 10

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        missing = tmp_path / "nowhere"
        message = f"no folder {re.escape(str(missing))} for the source dcgan"
        with pytest.raises(UserError, match=message):
            open_source("dcgan", missing, PREPARATION, tmp_path / "cache")

    @pytest.mark.parametrize("content", [None, "notes.txt", ".hidden.png"])
    def test_an_empty_folder_is_named(self, tmp_path: Path, content: str | None) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        if content is not None:
            (empty / content).write_bytes(b"")
        message = f"folder {re.escape(str(empty))} of the source dcgan has no JPEG"
        with pytest.raises(UserError, match=message):
            open_source("dcgan", empty, PREPARATION, tmp_path / "cache")


def _touch(folder: Path) -> None:
    os.utime(folder / "000.png", ns=(1, 1))


def _change(folder: Path) -> None:
    write_images(folder, 1, seed=7)


def _add(folder: Path) -> None:
    shutil.copy(folder / "000.png", folder / "003b.png")


def _remove(folder: Path) -> None:
    (folder / "003.png").unlink()


def _rename(folder: Path) -> None:
    (folder / "003.png").rename(folder / "009.png")


class TestCache:
    def test_a_second_opening_decodes_nothing(
        self, folder: Path, opened: Callable[..., Source], decodes: list[str]
    ) -> None:
        opened()
        assert sorted(decodes) == [f"{number:03d}.png" for number in range(6)]
        decodes.clear()
        is_right(opened(), folder)
        # What is allowed to be rejected has no part in the rows.
        opened(LENIENT)
        assert decodes == []

    def test_the_listing_is_released_before_rows_that_are_there_are_read(
        self, folder: Path, opened: Callable[..., Source], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Images(list[ImageFile]):
            """A list that can be referred to weakly."""

        opened()
        kept: list[weakref.ref[Images]] = []
        read = sources.mapped

        def listed(place: Path) -> Listing:
            images = Images(list_images(place).images)
            kept.append(weakref.ref(images))
            return Listing(images, Counter())

        def mapped(*given: Any) -> Source:  # noqa: ANN401
            assert [images() for images in kept] == [None]
            return read(*given)

        monkeypatch.setattr(opening, "list_images", listed)
        monkeypatch.setattr(opening, "mapped", mapped)
        is_right(opened(), folder)

    def test_a_folder_that_is_still_being_filled_is_refused(
        self, folder: Path, opened: Callable[..., Source], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def listed(place: Path) -> Listing:
            found = list_images(place)
            shutil.copy(place / "000.png", place / f"{len(found.images)}.png")
            return found

        monkeypatch.setattr(opening, "list_images", listed)
        with pytest.raises(UserError, match=r"are being changed: repeat the command when"):
            opened()
        monkeypatch.undo()
        assert len(opened()) == 8

    @pytest.mark.parametrize("edit", [_touch, _change, _add, _remove, _rename])
    def test_a_change_of_the_folder_builds_anew_in_place_of_the_old_rows(
        self,
        tmp_path: Path,
        folder: Path,
        opened: Callable[..., Source],
        decodes: list[str],
        edit: Callable[[Path], None],
    ) -> None:
        old = opened()
        rows = old.rows[:].copy()
        edit(folder)
        decodes.clear()
        source = opened()
        assert len(decodes) == len(list(folder.iterdir()))
        np.testing.assert_array_equal(source.rows, pixels(sorted(folder.iterdir())))
        assert source.paths == [path.name for path in sorted(folder.iterdir())]
        assert len(caches(tmp_path)) == 1
        np.testing.assert_array_equal(old.rows, rows)  # who still reads them can

    @pytest.mark.parametrize(
        "preparation",
        [
            PREPARATION._replace(image_size=8),
            PREPARATION._replace(resize_filter=ResizeFilter.box),
            PREPARATION._replace(min_side=8),
        ],
    )
    def test_every_setting_has_its_own_rows(
        self, opened: Callable[..., Source], decodes: list[str], preparation: Preparation
    ) -> None:
        opened()
        decodes.clear()
        assert opened(preparation).rows.shape[1] == preparation.image_size
        assert len(decodes) == 6
        opened()
        opened(preparation)
        assert len(decodes) == 6

    def test_another_decode_policy_builds_anew(
        self,
        opened: Callable[..., Source],
        decodes: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        opened()
        monkeypatch.setattr(opening, "POLICY_VERSION", -1)
        opened()
        assert len(decodes) == 12

    def test_folders_of_one_name_have_each_their_own_rows(
        self, tmp_path: Path, decodes: list[str]
    ) -> None:
        for seed in range(2):
            write_images(tmp_path / str(seed) / "faces", 3, seed)
        for _ in range(2):
            for root in ("0", "1"):
                folder = tmp_path / root / "faces"
                is_right(open_source("faces", folder, PREPARATION, tmp_path / "cache"), folder)
        assert len(decodes) == 6

    @pytest.mark.parametrize(
        ("file", "damage"),
        [
            ("rows.bin", lambda content: content[:-1]),
            ("rows.bin", lambda content: content[: SIZE * SIZE * 3]),
            ("rows.bin", lambda content: content + bytes(SIZE * SIZE * 3)),
            ("rows.bin", lambda content: b""),
            ("rows.bin", lambda content: bytes(len(content))),
            ("rows.bin", lambda content: content[: len(content) // 2] + bytes(len(content) // 2)),
            ("rows.bin", None),
            ("manifest.parquet", lambda content: content[:-10]),
            ("manifest.parquet", lambda content: content[: len(content) // 2]),
            ("manifest.parquet", lambda content: b"garbage" * 100),
            ("manifest.parquet", lambda content: bytes(len(content))),
            ("manifest.parquet", lambda content: b""),
            ("manifest.parquet", None),
        ],
    )
    def test_a_damaged_cache_is_built_anew(
        self,
        tmp_path: Path,
        folder: Path,
        opened: Callable[..., Source],
        decodes: list[str],
        file: str,
        damage: Callable[[bytes], bytes] | None,
    ) -> None:
        opened()
        (cache,) = caches(tmp_path)
        if damage is None:
            (cache / file).unlink()
        else:
            (cache / file).write_bytes(damage((cache / file).read_bytes()))
        decodes.clear()
        is_right(opened(), folder)
        assert len(decodes) == 6
        is_right(opened(), folder)
        assert len(decodes) == 6

    @pytest.mark.parametrize("row", [0, 77, 149])
    def test_one_changed_byte_of_any_row_is_found(
        self,
        tmp_path: Path,
        folder: Path,
        opened: Callable[..., Source],
        decodes: list[str],
        row: int,
    ) -> None:
        write_images(folder, 150)
        opened()
        (cache,) = caches(tmp_path)
        content = bytearray((cache / "rows.bin").read_bytes())
        content[row * SIZE * SIZE * 3 + 5] ^= 1
        (cache / "rows.bin").write_bytes(content)
        decodes.clear()
        is_right(opened(), folder)
        assert len(decodes) == 150

    @pytest.mark.parametrize("columns", [["path"], ["path", "digest", "rejected"]])
    def test_a_manifest_of_other_columns_is_built_anew(
        self, tmp_path: Path, folder: Path, opened: Callable[..., Source], columns: list[str]
    ) -> None:
        opened()
        (cache,) = caches(tmp_path)
        manifest = cache / "manifest.parquet"
        pq.write_table(pq.read_table(manifest).select(columns), manifest)
        is_right(opened(), folder)

    def test_leftovers_of_a_killed_build_are_removed(
        self, tmp_path: Path, folder: Path, opened: Callable[..., Source]
    ) -> None:
        opened()
        (cache,) = caches(tmp_path)
        unfinished = cache.with_name("unfinished")
        cache.rename(unfinished)  # as one killed just before its end leaves it
        (unfinished / "manifest.parquet").unlink()
        (cache.with_name("0" * 24)).mkdir()
        is_right(opened(), folder)
        assert caches(tmp_path) == [cache]


class TestNeeded:
    """Of 30 files, of which 002, 003 and 028 are no images."""

    @pytest.fixture
    def paths(self, folder: Path) -> list[Path]:
        """The 27 images."""
        paths = write_images(folder, 30)
        for number in (2, 3, 28):
            paths[number].write_bytes(b"no image")
        return [path for number, path in enumerate(paths) if number not in (2, 3, 28)]

    @pytest.fixture
    def needing(self, tmp_path: Path, folder: Path) -> Callable[[int, int], Source]:
        """Open the folder; takes the numbers of first and last images."""

        def open_(first: int, last: int) -> Source:
            needed = Needed(first, last)
            return open_source("faces", folder, LENIENT, tmp_path / "cache", needed)

        return open_

    @pytest.mark.parametrize(
        ("first", "last", "decoded"),
        [(2, 3, 2 + 4), (3, 0, 5), (0, 1, 1), (0, 2, 3), (5, 5, 7 + 6), (20, 6, 22 + 7)],
    )
    def test_only_those_are_decoded(
        self,
        paths: list[Path],
        needing: Callable[[int, int], Source],
        decodes: list[str],
        first: int,
        last: int,
        decoded: int,
    ) -> None:
        for _ in range(2):  # built, and from the cache
            source = needing(first, last)
            expected = paths[:first] + paths[len(paths) - last :]
            assert source.paths == [path.name for path in expected]
            np.testing.assert_array_equal(source.rows, pixels(expected))
            assert source.files == 30
            assert len(decodes) == len(source) + len(source.rejected) == decoded

    @pytest.mark.parametrize(("first", "last"), [(30, 0), (0, 30), (26, 2), (27, 27), (15, 15)])
    def test_of_too_few_there_are_all(
        self,
        paths: list[Path],
        needing: Callable[[int, int], Source],
        decodes: list[str],
        first: int,
        last: int,
    ) -> None:
        source = needing(first, last)
        assert source.paths == [path.name for path in paths]
        np.testing.assert_array_equal(source.rows, pixels(paths))
        assert len(decodes) == 30

    @pytest.mark.usefixtures("paths")
    def test_less_is_there_already_and_more_is_added_to_it(
        self, tmp_path: Path, needing: Callable[[int, int], Source], decodes: list[str]
    ) -> None:
        needing(4, 2)
        decodes.clear()
        assert len(needing(0, 2)) == len(needing(1, 1)) == 6
        assert decodes == []
        assert len(needing(1, 5)) == 9  # the first four, too: they are needed by others
        assert len(caches(tmp_path)) == 1
        decodes.clear()
        assert len(needing(4, 2)) == 9
        assert decodes == []
        assert len(needing(28, 1)) == 27
        decodes.clear()
        assert len(needing(30, 30)) == 27
        assert decodes == []

    @pytest.mark.usefixtures("paths")
    def test_where_images_were_made_from_others_all_are_opened(
        self, tmp_path: Path, folder: Path
    ) -> None:
        write_images(tmp_path / "made", 3, seed=1)
        folders = {"faces": folder, "made": tmp_path / "made"}

        def counts() -> list[int]:
            needed = dict.fromkeys(folders, Needed(1, 1))
            opened = open_sources(folders, LENIENT, tmp_path / "cache", needed)
            return [len(source) for source in opened]

        assert counts() == [2, 2]
        (tmp_path / "made" / "source.json").write_text('{"made_from": {"0.png": {"sha256": "a"}}}')
        assert counts() == [27, 3]


@contextmanager
def _no_file_beyond(size: int) -> Iterator[None]:
    """A file system that takes no file larger than ``size``: the kernel refuses writing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestDisk:
    @pytest.mark.parametrize("rows", [0, 3])
    def test_a_write_that_fails_half_way_leaves_no_half_cache(
        self, tmp_path: Path, folder: Path, opened: Callable[..., Source], rows: int
    ) -> None:
        write_images(folder, 100)  # more than is buffered
        with _no_file_beyond(rows * SIZE * SIZE * 3), pytest.raises(UserError) as caught:
            opened()
        assert f"prepared images of faces in {tmp_path / 'cache'}" in str(caught.value)
        assert os.strerror(errno.EFBIG) in str(caught.value)
        assert "cache_dir" in str(caught.value)
        assert caches(tmp_path) == []
        is_right(opened(), folder)

    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), MemoryError()])
    def test_an_error_half_way_leaves_no_half_cache(
        self,
        tmp_path: Path,
        folder: Path,
        opened: Callable[..., Source],
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
    ) -> None:
        with monkeypatch.context() as patch:

            def fails(*_: object) -> None:
                raise error

            patch.setattr(sources, "_to_disk", fails)
            expected = UserError if isinstance(error, OSError) else type(error)
            with pytest.raises(expected):
                opened()
        assert caches(tmp_path) == []
        is_right(opened(), folder)

    def test_ctrl_c_half_way_leaves_no_half_cache(
        self,
        tmp_path: Path,
        folder: Path,
        opened: Callable[..., Source],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def interrupted(path: Path, min_side: int) -> object:
            if path.name == "004.png":
                raise KeyboardInterrupt
            return decode(path, min_side)

        with monkeypatch.context() as patch:
            patch.setattr(sources, "decode", interrupted)
            with pytest.raises(KeyboardInterrupt):
                opened()
        assert caches(tmp_path) == []
        is_right(opened(), folder)

    @pytest.mark.parametrize("below", ["", "deep/down"])
    def test_a_cache_that_cannot_be_written_is_named(
        self, tmp_path: Path, folder: Path, below: str
    ) -> None:
        file = tmp_path / "file"
        file.write_text("precious")
        with pytest.raises(UserError, match=f"faces in {re.escape(str(file))}.*cache_dir=FOLDER"):
            open_source("faces", folder, PREPARATION, file / below)
        assert file.read_text() == "precious"


_OPEN = """
import hashlib, sys, time
from pathlib import Path
from forensics.data import opening, sources
from forensics.images.decode import decode
from forensics.images.geometry import ResizeFilter

decoded = []
def slowly(path, min_side):
    decoded.append(path)
    time.sleep(0.005)
    return decode(path, min_side)

sources.decode = slowly
print("ready", flush=True)
sys.stdin.readline()
folder, cache = map(Path, sys.argv[1:])
preparation = sources.Preparation(16, ResizeFilter.lanczos, 16, 0.0)
source = opening.open_source("faces", folder, preparation, cache)
print(len(decoded), hashlib.sha256(source.rows).hexdigest())
"""


class TestAtOnce:
    @pytest.mark.slow
    def test_of_two_processes_one_builds_and_both_read_its_rows(
        self, tmp_path: Path, folder: Path
    ) -> None:
        paths = write_images(folder, 60)
        command = [sys.executable, "-c", _OPEN, str(folder), str(tmp_path / "cache")]
        with ExitStack() as stack:
            processes = [
                stack.enter_context(
                    subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT)
                )
                for _ in range(2)
            ]
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            answers = [process.communicate(timeout=60)[0].split() for process in processes]
        assert sorted(int(decoded) for decoded, _ in answers) == [0, len(paths)]
        expected = hashlib.sha256(pixels(paths).tobytes()).hexdigest()
        assert [digest for _, digest in answers] == [expected] * 2

    def test_threads_that_open_at_once_build_once(
        self, folder: Path, opened: Callable[..., Source], decodes: list[str]
    ) -> None:
        with ThreadPoolExecutor(4) as pool:
            for source in pool.map(lambda _: opened(), range(4)):
                is_right(source, folder)
        assert len(decodes) == 6
