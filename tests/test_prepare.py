"""From a folder, archive or parquet to a source: the same of each, whole or not there."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import photos, stop
from PIL import Image

from forensics.cli import main
from forensics.data import prepare as module
from forensics.data.duplicates import perceptual_hashes
from forensics.data.images import ResizeFilter
from forensics.data.prepare import Prepared, prepare
from forensics.data.sources import Preparation, open_source
from forensics.errors import UserError

SIDE = 24
Contents = dict[str, bytes]


def encoded(number: int, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photos(1, SIDE, number)[0]).save(buffer, format_, **options)
    return buffer.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
CONTENTS: Contents = {
    "b/2.jpg": encoded(0, "jpeg", quality=83),
    "a.png": encoded(1, "png"),
    "notes.txt": b"no image",
    "b/1.webp": encoded(2, "webp", lossless=True),
    'c, "d"\n.jpeg': encoded(3, "jpeg", exif=EXIF),
    "cut.jpg": encoded(4, "jpeg")[:-20],
    "misnamed.jpg": encoded(5, "png"),
}
ORDER = ["a.png", "b/1.webp", "b/2.jpg", 'c, "d"\n.jpeg', "cut.jpg", "misnamed.jpg", "notes.txt"]
PATHS = ["000000.png", "000001.webp", "000002.jpg", "000003.jpg", None, "000005.png", None]


def _folder(path: Path, contents: Contents) -> Path:
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    (path / ".hidden.jpg").write_bytes(b"")
    return path


def _zip(path: Path, contents: Contents) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("b")
        archive.writestr("__MACOSX/._a.png", b"")
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def _tar(path: Path, contents: Contents, kind: str = "") -> Path:
    with tarfile.open(path, cast(Any, f"w:{kind}")) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def _parquet(path: Path, contents: Contents) -> Path:
    images = [{"bytes": contents[name], "path": name} for name in sorted(contents)]
    pq.write_table(pa.table({"image": images, "label": [0] * len(images)}), path)
    return path


def _shards(path: Path, contents: Contents) -> Path:
    (path / "data").mkdir(parents=True)
    (path / "README.md").touch()
    names = sorted(contents)
    for shard, some in enumerate((names[:3], names[3:])):
        _parquet(path / "data" / f"train-{shard}.parquet", {name: contents[name] for name in some})
    return path


INPUTS: dict[str, Callable[[Path, Contents], Path]] = {
    "folder": _folder,
    "zip": _zip,
    "tar": _tar,
    "tar.gz": lambda path, contents: _tar(path, contents, "gz"),
    "tar.bz2": lambda path, contents: _tar(path, contents, "bz2"),
    "tar.xz": lambda path, contents: _tar(path, contents, "xz"),
    "parquet": _parquet,
    "shards": _shards,
}


def _prepared(given: Path, tmp_path: Path) -> Prepared:
    return prepare("faces", given, tmp_path / "root", min_side=SIDE)


def _rows(tmp_path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(
        tmp_path / "root" / "faces" / "manifest.parquet"
    ).to_pylist()
    return rows


def _left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "root").iterdir())


class TestInputs:
    @pytest.mark.parametrize("kind", INPUTS)
    def test_every_kind_gives_the_same_source(self, tmp_path: Path, kind: str) -> None:
        folder, accepted, rejected = _prepared(
            INPUTS[kind](tmp_path / f"input.{kind}", CONTENTS), tmp_path
        )
        assert (folder, accepted) == (tmp_path / "root" / "faces", 5)
        assert [name for name, _ in rejected] == ["cut.jpg", "notes.txt"]
        rows = _rows(tmp_path)
        assert [row["original"] for row in rows] == ORDER
        assert [row["path"] for row in rows] == PATHS
        for row in rows:
            content = CONTENTS[row["original"]]
            assert row["sha256"] == hashlib.sha256(content).hexdigest()
            assert row["bytes"] == len(content)
            assert (row["path"] is None) == (row["error"] is not None) == (row["hash"] is None)
            if row["path"]:
                assert (folder / row["path"]).read_bytes() == content
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            [*filter(None, PATHS), "manifest.parquet"]
        )
        assert _left(tmp_path) == ["faces"]

    def test_the_manifest_says_what_each_image_is(self, tmp_path: Path) -> None:
        _prepared(_folder(tmp_path / "input", CONTENTS), tmp_path)
        rows = {row["original"]: row for row in _rows(tmp_path)}
        assert [rows["b/2.jpg"][key] for key in ("format", "width", "height", "mode")] == [
            *("JPEG", SIDE, SIDE, "RGB")
        ]
        assert rows["b/2.jpg"]["jpeg_quality"] == 83
        assert rows["a.png"]["jpeg_quality"] is None
        assert [rows['c, "d"\n.jpeg'][key] for key in ("orientation", "exif")] == [6, True]
        assert "neither JPEG, PNG nor WebP" in rows["notes.txt"]["error"]
        assert "runcated" in rows["cut.jpg"]["error"]
        large = Image.fromarray(photos(1, SIDE, 1)[0]).resize((128, 128), Image.Resampling.LANCZOS)
        assert rows["a.png"]["hash"] == perceptual_hashes(np.asarray(large)[None])[0]

    def test_a_source_is_opened_in_the_same_order(self, tmp_path: Path) -> None:
        folder, *_ = _prepared(_zip(tmp_path / "input.zip", CONTENTS), tmp_path)
        preparation = Preparation(SIDE, ResizeFilter.lanczos, SIDE, 0.0)
        source = open_source("faces", folder, preparation, tmp_path / "cache")
        assert source.paths == [path for path in PATHS if path]
        assert source.rejected == []

    def test_columns_of_plain_bytes(self, tmp_path: Path) -> None:
        images = [encoded(0, "png"), None, encoded(1, "png")]
        pq.write_table(pa.table({"id": [1, 2, 3], "jpg": images}), tmp_path / "a.parquet")
        _, accepted, rejected = _prepared(tmp_path / "a.parquet", tmp_path)
        assert (accepted, rejected) == (2, [("a.parquet, row 1", "no bytes")])

    def test_small_images_are_left_out_by_the_setting(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="24x24 pixels, each side must have at least 25"):
            prepare(
                "faces", _folder(tmp_path / "input", CONTENTS), tmp_path / "root", min_side=SIDE + 1
            )
        assert _left(tmp_path) == []

    def test_many_files_in_an_order_of_their_own(self, tmp_path: Path) -> None:
        contents = {f"{number * 7919 % 1009:04d}.png": encoded(0, "png") for number in range(300)}
        _prepared(_tar(tmp_path / "input.tar.gz", contents, "gz"), tmp_path)
        assert [row["original"] for row in _rows(tmp_path)] == sorted(contents)


class TestRefused:
    @pytest.mark.parametrize("name", ["", "a/b", "../a", ".a"])
    def test_what_is_no_name(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UserError, match="is no source's name"):
            prepare(name, _folder(tmp_path / "input", CONTENTS), tmp_path / "root", SIDE)

    def test_a_source_that_is_there(self, tmp_path: Path) -> None:
        given = _folder(tmp_path / "input", CONTENTS)
        _prepared(given, tmp_path)
        before = _rows(tmp_path)
        with pytest.raises(UserError, match=r"root/faces is there already: remove it, or give"):
            _prepared(given, tmp_path)
        assert _rows(tmp_path) == before
        assert _left(tmp_path) == ["faces"]

    def test_an_empty_folder_in_its_place_is_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "root" / "faces").mkdir(parents=True)
        assert _prepared(_folder(tmp_path / "input", CONTENTS), tmp_path).accepted == 5

    def test_a_source_that_another_process_prepares(self, tmp_path: Path) -> None:
        (tmp_path / "root").mkdir()
        program = (
            "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); "
            "print(flush=True); sys.stdin.read()"
        )
        lock = str(tmp_path / "root" / ".faces.lock")
        with subprocess.Popen(
            [sys.executable, "-c", program, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout
            assert other.stdin
            other.stdout.readline()
            with pytest.raises(UserError, match="Another process prepares"):
                _prepared(_folder(tmp_path / "input", CONTENTS), tmp_path)
            other.stdin.close()
        assert _prepared(tmp_path / "input", tmp_path).accepted == 5

    @pytest.mark.parametrize("columns", [{"a": [1]}, {"a": [b"1"], "b": [b"2"]}])
    def test_parquet_without_one_column_of_images(
        self, tmp_path: Path, columns: dict[str, list[object]]
    ) -> None:
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        with pytest.raises(UserError, match=r"has (0|2) columns of encoded images among a"):
            _prepared(tmp_path / "a.parquet", tmp_path)


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class TestInterrupted:
    @pytest.mark.parametrize("error", [stop, _full])
    def test_nothing_half_is_left_and_it_can_be_done_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[..., None]
    ) -> None:
        given = _folder(tmp_path / "input", CONTENTS)
        with monkeypatch.context() as patched:
            patched.setattr(module, "perceptual_hashes", error)
            with pytest.raises((KeyboardInterrupt, OSError)):
                _prepared(given, tmp_path)
        assert _left(tmp_path) == []
        assert _prepared(given, tmp_path).accepted == 5

    def test_what_a_kill_left_is_removed(self, tmp_path: Path) -> None:
        left = tmp_path / "root" / ".faces.unfinished"
        left.mkdir(parents=True)
        (left / "000009.part").write_bytes(b"half")
        _prepared(_folder(tmp_path / "input", CONTENTS), tmp_path)
        assert _left(tmp_path) == ["faces"]
        assert not (tmp_path / "root" / "faces" / "000009.part").exists()


class TestCommand:
    def test_it_says_what_became_of_the_files(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        given = _zip(tmp_path / "a =b.zip", CONTENTS)
        arguments = ["prepare", "faces", str(given), "--root", str(tmp_path / "root")]
        assert main([*arguments, "--min-side", str(SIDE)]) == 0
        out, _ = capsys.readouterr()
        assert "5 images in" in out
        assert "2 files left out, the first 'cut.jpg'" in out
        assert main([*arguments, "--min-side", str(SIDE)]) == 1
        assert "is there already" in capsys.readouterr().err
