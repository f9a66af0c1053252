"""From a folder, archive or parquet to a source: the same of each, complete or not there."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import names_decoded, photos, stop
from PIL import Image

from forensics.cli import main
from forensics.data.ingest import items
from forensics.data.ingest import prepare as module
from forensics.data.ingest.prepare import Prepared, prepare
from forensics.data.opening import open_source
from forensics.data.sources import Preparation
from forensics.errors import UserError
from forensics.images.duplicates import perceptual_hashes
from forensics.images.geometry import ResizeFilter

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
        folder, accepted, rejected, *_ = _prepared(
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
        _, accepted, rejected, *_ = _prepared(tmp_path / "a.parquet", tmp_path)
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
        with pytest.raises(UserError, match="is not a source name"):
            prepare(name, _folder(tmp_path / "input", CONTENTS), tmp_path / "root", SIDE)

    def test_a_source_that_is_there(self, tmp_path: Path) -> None:
        given = _folder(tmp_path / "input", CONTENTS)
        _prepared(given, tmp_path)
        before = _rows(tmp_path)
        with pytest.raises(UserError, match=r"root/faces exists already: remove it, or give"):
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
            with pytest.raises(UserError, match="Another process is preparing"):
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


BOTH: Contents = {
    f"test/{generator}/{class_}/{n}.png": encoded(n, "png")
    for n, (generator, class_) in enumerate(
        (generator, class_) for generator in ("car", "horse") for class_ in ("0_real", "1_Fake")
    )
}


def _backslashes(path: Path, contents: Contents) -> Path:
    """A zip of a Windows program that does not keep to the standard."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ["test\\", *(name.replace("/", "\\") for name in contents)]:
            member = zipfile.ZipInfo("x")
            member.filename = name  # its constructor would mend the name on Windows
            archive.writestr(member, contents.get(name.replace("\\", "/"), b""))
    return path


class TestClasses:
    @pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz", "backslashes"])
    def test_both_in_one_input_are_refused_and_one_can_be_chosen(
        self, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make = INPUTS.get(kind, _backslashes)
        given = make(tmp_path / f"input.{kind}", BOTH)
        root = tmp_path / "root"
        command = ["prepare", "fake", str(given), "--root", str(root), "--min-side", str(SIDE)]
        assert main(command) == 1
        said = capsys.readouterr().err
        assert "--only 0_real or --only 1_Fake" in said
        assert _left(tmp_path) == []
        for only in (["test"], ["0_real", "1_Fake"], ["horse"]):  # still both
            assert main([*command, *(f"--only={name}" for name in only)]) == 1
            assert "--only 1_Fake" in capsys.readouterr().err
        assert main([*command, "--only", "2_other"]) == 1
        assert "has no file in a folder 2_other: name one of 0_real, 1_Fake" in (
            capsys.readouterr().err
        )
        assert main([*command, "--only", "1_fake"]) == 0
        assert "2 images in" in (out := capsys.readouterr().out)
        assert "come from 2 folders" in out
        rows = pq.read_table(root / "fake" / "manifest.parquet").to_pylist()
        originals = [row["original"].replace("\\", "/") for row in rows]
        assert originals == ["test/car/1_Fake/1.png", "test/horse/1_Fake/3.png"]
        for row, original in zip(rows, originals, strict=True):
            assert (root / "fake" / row["path"]).read_bytes() == BOTH[original]
        command[1] = "horse"
        assert main([*command, "--only", "horse/1_fake"]) == 0
        assert "1 images in" in capsys.readouterr().out

    def test_an_interrupted_choice_is_not_another_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = _folder(tmp_path / "input", BOTH)
        with monkeypatch.context() as patched:
            patched.setattr(module, "decode", stop)
            with pytest.raises(KeyboardInterrupt):
                prepare("faces", given, tmp_path / "root", SIDE, only=["0_real"])
        folder, *_ = prepare("faces", given, tmp_path / "root", SIDE, only=["1_fake"])
        rows = pq.read_table(folder / "manifest.parquet").to_pylist()
        assert all("1_Fake" in row["original"] for row in rows)

    @pytest.mark.parametrize(
        ("columns", "chosen"),
        [
            ({"label": [0, 1, 1]}, "1"),
            ({"label": [0.0, 1.0, 1.0]}, "label=1"),
            ({"is_fake": [False, True, True]}, "is_fake=1"),
            ({"label": ["real", "fake", "FAKE"]}, "fake"),
            ({"label": ["real", "sd", "sd"]}, "sd"),
            ({"generator": ["nature", "ADM", "ADM"], "label": [5, 5, 5]}, "ADM"),
            ({"label_a": [0, 1, 1], "label_b": [0, 1, 1]}, "label_b=1"),
            ({"label": [0, 1, 1], "names": ["Real", "AI"]}, "label=AI"),
            ({"label": [-1, 1, 1]}, "1"),
            ({"class": [1, 2, 2]}, "class=2"),
            ({"kind": ["authentic", "1_fake", "1_fake"]}, "kind=1_fake"),
        ],
    )
    def test_labels_of_parquet(
        self, tmp_path: Path, columns: dict[str, list[Any]], chosen: str
    ) -> None:
        names = columns.pop("names", None)
        images = [encoded(n, "png") for n in range(3)]
        table = pa.table({"image": images, **columns})
        if names:  # as the hub stores them
            features = {"info": {"features": {"label": {"names": names}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(UserError, match="real and generated images by its column") as caught:
            _prepared(tmp_path / "a.parquet", tmp_path)
        assert caught.value.key in columns
        folder, accepted, *_ = prepare(
            "faces", tmp_path / "a.parquet", tmp_path / "root", SIDE, label=[chosen]
        )
        assert accepted == 2
        for path, image in zip(("000000.png", "000001.png"), images[1:], strict=True):
            assert (folder / path).read_bytes() == image

    @pytest.mark.parametrize(
        "columns",
        [
            {"label": [1, 1, 1]},
            {"label": [0, 7, 999]},  # of ImageNet
            {"Smiling": [0, 1, 1]},
            {"label": ["cat", "dog", "dog"]},
            {"prompt": ["real", "fake", "a nature photograph"]},
        ],
    )
    def test_other_columns_of_parquet(
        self, tmp_path: Path, columns: dict[str, list[Any]], caplog: pytest.LogCaptureFixture
    ) -> None:
        images = [encoded(n, "png") for n in range(3)]
        pq.write_table(pa.table({"image": images, **columns}), tmp_path / "a.parquet")
        with caplog.at_level("INFO"):
            assert _prepared(tmp_path / "a.parquet", tmp_path).accepted == 3
        several = len(set(columns.get("label", []))) > 1
        assert any("every label" in message for message in caplog.messages) == several

    def test_both_numbers_are_one_class_if_the_user_says_so(self, tmp_path: Path) -> None:
        images = [encoded(n, "png") for n in range(2)]
        pq.write_table(pa.table({"image": images, "label": [0, 1]}), tmp_path / "a.parquet")
        given = tmp_path / "a.parquet"
        assert prepare("faces", given, tmp_path / "root", SIDE, label=["0", "1"]).accepted == 2

    @pytest.mark.parametrize("label", ["2", "label=2", "other=1", "1"])
    def test_a_label_that_is_not_clear_is_named(self, tmp_path: Path, label: str) -> None:
        columns = {"label": [0, 1], "target": [0, 1]}
        pq.write_table(pa.table({"image": [b"", b""], **columns}), tmp_path / "a.parquet")
        with pytest.raises(UserError, match=r"label=[01]") as caught:
            prepare("faces", tmp_path / "a.parquet", tmp_path / "root", SIDE, label=[label])
        assert caught.value.key == "--label"

    def test_an_option_that_does_not_apply_is_refused(self, tmp_path: Path) -> None:
        folder, parquet = _folder(tmp_path / "input", CONTENTS), tmp_path / "a.parquet"
        _parquet(parquet, CONTENTS)
        for given, options in ((folder, {"label": ["1"]}), (parquet, {"only": ["b"]})):
            with pytest.raises(UserError) as caught:
                prepare("faces", given, tmp_path / "root", SIDE, **options)
            assert caught.value.key == f"--{next(iter(options))}"


class TestOddInputs:
    @pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
    def test_system_files_are_counted(
        self, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        names = ["__MACOSX/b/._2.jpg", "__MACOSX/a.png", "b/Thumbs.db", "desktop.ini", "b/._1.webp"]
        given = INPUTS[kind](tmp_path / "input", CONTENTS | dict.fromkeys(names, b"\0"))
        root = str(tmp_path / "root")
        command = ["prepare", "faces", str(given), "--root", root, "--min-side", str(SIDE)]
        assert main(command) == 0
        out = capsys.readouterr().out
        assert "5 images in" in out
        assert re.search(r"\d files passed over: \d macOS or Windows system files", out)
        assert [row["original"] for row in _rows(tmp_path)] == ORDER

    def test_a_compression_that_python_lacks_is_named_with_a_remedy(self, tmp_path: Path) -> None:
        content = bytearray(_zip(tmp_path / "a.zip", CONTENTS).read_bytes())
        at = content.index(b"PK\1\2", content.index(b"PK\1\2", content.index(b"PK\1\2") + 4) + 4)
        content[at + 10 : at + 12] = (9).to_bytes(2, "little")
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(UserError, match=r"Deflate64.*unpack it") as caught:
            _prepared(tmp_path / "a.zip", tmp_path)
        assert caught.value.key == str(tmp_path / "a.zip")

    def test_a_parquet_that_repeats_one_image_is_bounded_by_what_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(items, "MAX_BYTES", 1_000_000)
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "png")
        pq.write_table(pa.table({"image": [buffer.getvalue()] * 2000}), tmp_path / "a.parquet")
        assert (tmp_path / "a.parquet").stat().st_size < 50_000
        with pytest.raises(UserError, match="unpacks to more than"):
            _prepared(tmp_path / "a.parquet", tmp_path)
        assert _left(tmp_path) == []

    def test_a_folder_whose_name_is_no_text(self, tmp_path: Path) -> None:
        given = _folder(tmp_path / os.fsdecode(b"caf\xe9"), CONTENTS)
        assert _prepared(given, tmp_path).accepted == 5
        shards = tmp_path / os.fsdecode(b"parqu\xe9")
        _shards(tmp_path / "shards", CONTENTS).rename(shards)  # Arrow's own paths are UTF-8
        root = tmp_path / os.fsdecode(b"r\xe9")
        folder, accepted, *_ = prepare("faces", shards, root, SIDE)
        assert accepted == 5
        preparation = Preparation(SIDE, ResizeFilter.lanczos, SIDE, 0.0)
        assert len(open_source("faces", folder, preparation, root / "cache")) == 5

    def test_a_prepared_source_is_an_input_and_images_beside_parquet_are_counted(
        self, tmp_path: Path
    ) -> None:
        folder, *_ = _prepared(_folder(tmp_path / "input", CONTENTS), tmp_path)
        again = prepare("again", folder, tmp_path / "root", SIDE)
        assert again.accepted == 5
        shards = _shards(tmp_path / "shards", CONTENTS)
        (shards / "logo.png").write_bytes(CONTENTS["a.png"])
        prepared = prepare("shards", shards, tmp_path / "root", SIDE)
        assert (prepared.accepted, prepared.passed_over.total()) == (5, 1)


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _bytes(folder: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


MANY = {f"{number:02d}.png": encoded(number, "png") for number in range(30)} | CONTENTS


@pytest.mark.slow
class TestInterrupted:
    """Of 37 files; what goes on must give, byte for byte, what was never stopped."""

    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What is decoded from here on."""
        return names_decoded(monkeypatch, module)

    @pytest.fixture
    def whole(self, tmp_path: Path) -> Callable[[Path], dict[str, bytes]]:
        """What an uninterrupted call makes of an input."""

        def make(given: Path) -> dict[str, bytes]:
            return _bytes(prepare("faces", given, tmp_path / "another", min_side=SIDE).folder)

        return make

    @pytest.fixture
    def interrupt(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Begin with an input, and end at its twentieth image."""

        def begin(given: Path, error: Callable[..., None] = stop) -> None:
            left = iter(range(20))

            def hashes(square: Any) -> Any:  # noqa: ANN401
                return perceptual_hashes(square) if next(left, None) is not None else error()

            with monkeypatch.context() as patched:
                patched.setattr(module, "perceptual_hashes", hashes)
                with pytest.raises((KeyboardInterrupt, OSError)):
                    _prepared(given, tmp_path)
            assert _left(tmp_path) == [".faces.unfinished"]

        return begin

    @pytest.mark.parametrize("error", [stop, _full])
    @pytest.mark.parametrize("kind", INPUTS)
    def test_the_same_command_goes_on_and_gives_the_same(
        self,
        tmp_path: Path,
        kind: str,
        error: Callable[..., None],
        interrupt: Callable[..., None],
        whole: Callable[[Path], dict[str, bytes]],
        decoded: list[str],
    ) -> None:
        given = INPUTS[kind](tmp_path / f"input.{kind}", MANY)
        interrupt(given, error)
        decoded.clear()
        prepared = _prepared(given, tmp_path)
        assert len(decoded) < 25
        assert (prepared.accepted, len(prepared.rejected)) == (35, 2)
        assert _bytes(prepared.folder) == whole(given)
        assert _left(tmp_path) == ["faces"]

    def test_after_kill_9_it_gives_the_same(
        self, tmp_path: Path, whole: Callable[[Path], dict[str, bytes]], decoded: list[str]
    ) -> None:
        given = _folder(tmp_path / "input", MANY)
        program = (
            "import os, signal, sys; from pathlib import Path\n"
            "from forensics.data.ingest import prepare as module\n"
            "write, left = Path.write_bytes, iter(range(20))\n"
            "def torn(path, content):\n"
            "    if next(left, None) is None:\n"
            "        write(path, content[:50])\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "    return write(path, content)\n"
            "Path.write_bytes = torn\n"
            "module.prepare('faces', Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))\n"
        )
        root = tmp_path / "root"
        killed = subprocess.run([sys.executable, "-c", program, given, root, str(SIDE)])
        assert killed.returncode == -9
        assert not (root / "faces").exists()
        assert len(list((root / ".faces.unfinished" / "images").iterdir())) >= 10
        prepared = _prepared(given, tmp_path)
        assert len(decoded) < 35
        assert _bytes(prepared.folder) == whole(given)
        assert _left(tmp_path) == ["faces"]

    @pytest.mark.parametrize("left", range(0, 2000, 97))
    def test_a_record_cut_anywhere_is_believed_up_to_there(
        self,
        tmp_path: Path,
        left: int,
        interrupt: Callable[..., None],
        whole: Callable[[Path], dict[str, bytes]],
    ) -> None:
        given = _zip(tmp_path / "input.zip", MANY)
        interrupt(given)
        record = tmp_path / "root" / ".faces.unfinished" / "record.jsonl"
        record.write_bytes(record.read_bytes()[:left])
        assert _bytes(_prepared(given, tmp_path).folder) == whole(given)

    @pytest.mark.parametrize(
        ("below", "changed", "removed"),
        [
            pytest.param("root/.faces.unfinished/images", "000000", "000001", id="what was done"),
            pytest.param("input", "00", "29", id="the input"),
        ],
    )
    def test_what_has_changed_meanwhile_is_made_again(
        self,
        tmp_path: Path,
        below: str,
        changed: str,
        removed: str,
        interrupt: Callable[..., None],
        whole: Callable[[Path], dict[str, bytes]],
    ) -> None:
        given = _folder(tmp_path / "input", MANY)
        interrupt(given)
        other = encoded(99, "png", compress_level=1)
        (tmp_path / below / f"{changed}.png").write_bytes(other)
        (tmp_path / below / f"{removed}.png").unlink()
        assert _bytes(_prepared(given, tmp_path).folder) == whole(given)

    def test_another_least_side_is_another_input(
        self, tmp_path: Path, interrupt: Callable[..., None]
    ) -> None:
        given = _folder(tmp_path / "input", MANY)
        interrupt(given)
        with pytest.raises(UserError, match="each side must have at least 25"):
            prepare("faces", given, tmp_path / "root", min_side=SIDE + 1)
        assert _left(tmp_path) == []

    def test_what_lies_there_without_a_record_is_removed(self, tmp_path: Path) -> None:
        left = tmp_path / "root" / ".faces.unfinished" / "images"
        left.mkdir(parents=True)
        (left / "000009.part").write_bytes(b"half")
        _prepared(_folder(tmp_path / "input", CONTENTS), tmp_path)
        assert _left(tmp_path) == ["faces"]
        assert not (tmp_path / "root" / "faces" / "000009.part").exists()

    def test_a_manifest_left_half_written_is_removed(
        self, tmp_path: Path, interrupt: Callable[..., None]
    ) -> None:
        given = _folder(tmp_path / "input", MANY)
        interrupt(given)
        left = tmp_path / "root" / ".faces.unfinished" / "images"
        (left / ".manifest.parquet.123.unfinished").write_bytes(b"half")
        prepare("faces", given, tmp_path / "root", min_side=SIDE)
        assert not list((tmp_path / "root" / "faces").glob(".*"))

    def test_it_says_how_to_go_on(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        given = _folder(tmp_path / "input", CONTENTS)
        arguments = ["prepare", "faces", str(given), "--root", str(tmp_path / "root")]
        arguments += ["--min-side", str(SIDE)]
        with monkeypatch.context() as patched:
            patched.setattr(module, "decode", stop)
            assert main(arguments) == 130
        assert "faces is not complete: repeat the command to resume" in caplog.text
        assert main(arguments) == 0


class TestCelebA:
    """As torchvision.datasets.CelebA leaves it: the folder of images, or the archive beside it."""

    @pytest.mark.parametrize("name", ["img_align_celeba", "img_align_celeba.zip"])
    def test_its_images_become_a_source(self, tmp_path: Path, name: str) -> None:
        celeba = tmp_path / "celeba"
        contents = {f"{n:06d}.jpg": encoded(n, "jpeg") for n in range(1, 12)}
        _folder(celeba / "img_align_celeba", contents)
        _zip(
            celeba / "img_align_celeba.zip",
            {f"img_align_celeba/{file}": content for file, content in contents.items()},
        )
        (celeba / "list_attr_celeba.txt").write_text("11")
        folder, accepted, rejected, *_ = _prepared(celeba / name, tmp_path)
        assert (accepted, rejected) == (11, [])
        assert (folder / "000010.jpg").read_bytes() == contents["000011.jpg"]


class _Hub:
    """Stands in for huggingface_hub: data sets are folders below ``root``, by branch."""

    def __init__(self, root: Path) -> None:
        self.root, self.downloaded = root, list[str]()
        self.fail: Exception | None = None

    def list_repo_refs(self, dataset: str, *, repo_type: str) -> SimpleNamespace:
        assert repo_type == "dataset"
        if not (self.root / dataset).is_dir():
            raise ValueError(f"404 Client Error.\n\n{dataset} is not there")
        branches = [path for path in (self.root / dataset).iterdir() if path.name != "main"]
        converts = [SimpleNamespace(ref=f"refs/convert/{path.name}") for path in branches]
        return SimpleNamespace(converts=converts)

    def _branch(self, dataset: str, revision: str | None) -> Path:
        return self.root / dataset / (revision or "main").removeprefix("refs/convert/")

    def dataset_info(self, dataset: str, *, revision: str | None) -> SimpleNamespace:
        branch = self._branch(dataset, revision)
        names = sorted(p.relative_to(branch).as_posix() for p in branch.rglob("*") if p.is_file())
        siblings = [SimpleNamespace(rfilename=name) for name in names]
        return SimpleNamespace(sha=branch.name, siblings=siblings)

    def snapshot_download(
        self,
        dataset: str,
        *,
        repo_type: str,
        revision: str,
        allow_patterns: list[str],
        local_dir: Path,
    ) -> None:
        if self.fail:
            raise self.fail
        for file in allow_patterns:
            if not (local_dir / file).exists():
                self.downloaded.append(file)
                (local_dir / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self._branch(dataset, revision) / file, local_dir / file)


class TestHub:
    @pytest.fixture
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Hub:
        """With ``me/faces`` on it, and ``me/zipped``, which the hub has made parquet of."""
        root = tmp_path / "hub"
        _shards(root / "me" / "faces" / "main", CONTENTS)
        for branch in ("main", "parquet"):
            (root / "me" / "zipped" / branch).mkdir(parents=True)
        (root / "me" / "zipped" / "main" / "a.zip").touch()
        _shards(root / "me" / "zipped" / "parquet" / "default", CONTENTS)
        (root / "me" / "nothing" / "main").mkdir(parents=True)
        hub = _Hub(root)
        module = ModuleType("huggingface_hub")
        module.__spec__ = ModuleSpec("huggingface_hub", None)
        for name in ("list_repo_refs", "dataset_info", "snapshot_download"):
            setattr(module, name, getattr(hub, name))
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)
        return hub

    def prepared(self, given: str, tmp_path: Path) -> Prepared:
        return prepare("faces", given, tmp_path / "root", min_side=SIDE)

    @pytest.mark.parametrize(
        "given", ["hf://me/faces", "hf://me/faces/data", "hf://me/zipped", "hf://me/zipped/default"]
    )
    def test_a_data_set_gives_the_source_that_its_files_do(
        self, tmp_path: Path, hub: _Hub, given: str
    ) -> None:
        folder, accepted, *_ = self.prepared(given, tmp_path)
        assert accepted == 5
        local = prepare("faces", hub.root / "me" / "faces" / "main", tmp_path / "local", SIDE)
        assert _bytes(folder) == _bytes(local.folder)
        assert [Path(name).name for name in hub.downloaded] == [
            "train-0.parquet", "train-1.parquet"
        ]  # fmt: skip
        assert _left(tmp_path) == ["faces"]

    def test_what_was_downloaded_is_not_downloaded_again(
        self, tmp_path: Path, hub: _Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(module, "decode", stop)
            with pytest.raises(KeyboardInterrupt):
                self.prepared("hf://me/faces", tmp_path)
        assert self.prepared("hf://me/faces", tmp_path).accepted == 5
        assert len(hub.downloaded) == 2
        assert _left(tmp_path) == ["faces"]

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("hf://me", "hf://me is not a data set's name: give hf://OWNER/NAME"),
            ("hf://me//data", "is not a data set's name"),
            ("hf://me/nothing", "hf://me/nothing has no parquet file: download it by hand"),
            ("hf://me/faces/test", "hf://me/faces/test has no parquet file"),
            (
                "hf://you/faces",
                r"cannot be downloaded \(ValueError: 404 Client Error.\): check name",
            ),
        ],
    )
    def test_what_cannot_be_had_is_one_sentence(
        self,
        tmp_path: Path,
        hub: _Hub,
        given: str,
        said: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert main(["prepare", "faces", given, "--root", str(tmp_path / "root")]) == 1
        error = capsys.readouterr().err
        assert re.search(said, error)
        assert error.count("\n") == 1
        assert _left(tmp_path) == []

    def test_a_full_disk_is_said_as_such(self, tmp_path: Path, hub: _Hub) -> None:
        hub.fail = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with pytest.raises(OSError, match="No space left"):
            self.prepared("hf://me/faces", tmp_path)

    def test_a_missing_package_is_said_with_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        assert main(["prepare", "faces", "hf://me/faces", "--root", str(tmp_path / "root")]) == 1
        assert capsys.readouterr().err == (
            "hf://me/faces needs huggingface_hub: pip install -c constraints.txt '.[hub]'.\n"
        )


class TestCommand:
    def test_the_home_folder_is_that_of_the_shell(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        home = tmp_path / "home"
        home.mkdir()
        monkeypatch.setenv("HOME", str(home))
        _folder(home / "input", CONTENTS)
        command = ["prepare", "faces", "~/input", "--root=~/root", "--min-side", str(SIDE)]
        assert main(command) == 0
        assert (home / "root" / "faces").is_dir()
        with pytest.raises(SystemExit, match="2"):
            main([*command[:3], "--root=~nobody-of-this-name/root"])
        assert "--root" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["home"]

    def test_it_says_what_became_of_the_files(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        given = _zip(tmp_path / "a =b.zip", CONTENTS)
        arguments = ["prepare", "faces", str(given), "--root", str(tmp_path / "root")]
        assert main([*arguments, "--min-side", str(SIDE)]) == 0
        out, _ = capsys.readouterr()
        assert "5 images in" in out
        assert "2 files left out" in out
        assert re.search(r"^  1: .*, 'cut\.jpg'$", out, re.M)
        assert re.search(r"^  1: neither JPEG, PNG nor WebP.*, 'notes\.txt'$", out, re.M)
        assert main([*arguments, "--min-side", str(SIDE)]) == 1
        assert "exists already" in capsys.readouterr().err

    @pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz", "parquet"])
    def test_archives_in_it_are_named_and_are_to_be_unpacked(
        self, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        archives = _zip(tmp_path / "1", CONTENTS), _tar(tmp_path / "2", CONTENTS, "gz")
        names = ("b/1.zip", "b/2.tar.gz")
        inner = {name: path.read_bytes() for name, path in zip(names, archives, strict=True)}
        given = INPUTS[kind](tmp_path / f"outer.{kind}", {**CONTENTS, **inner})
        arguments = ["prepare", "faces", str(given), "--root", str(tmp_path / "root")]
        assert main([*arguments, "--min-side", str(SIDE)]) == 0
        out = capsys.readouterr().out
        assert "5 images in" in out
        assert "4 files left out" in out
        for name in inner:
            assert re.search(rf"^  1: .*archive, unpack it, '{re.escape(name)}'$", out, re.M)

    def test_an_archive_of_archives_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inner = _zip(tmp_path / "in.zip", CONTENTS).read_bytes()
        given = _tar(tmp_path / "out.tar", {"train/0.zip": inner})
        arguments = ["prepare", "faces", str(given), "--root", str(tmp_path / "root")]
        assert main(arguments) == 1
        assert re.search(r"'train/0\.zip' \(.*archive, unpack it\)", capsys.readouterr().err)
        monkeypatch.setattr(items, "MAX_BYTES", len(inner) - 1)
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert re.search(r"'train/0\.zip' \(\d+ bytes .*archive, unpack it\)", said)
