"""The audit finds planted shortcuts and duplicates, and nothing where nothing was planted."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import photos
from PIL import Image
from sklearn.metrics import roc_auc_score

from forensics.cli import main
from forensics.data.datamodule import FaceData
from forensics.data.repetitions import repetitions
from forensics.data.settings import DatasetSettings
from forensics.errors import UserError
from forensics.evaluation.audit import (
    MAX_AUROC,
    PREPARATION,
    TRAITS,
    Audited,
    _repetitions,
    audit,
    audit_folders,
    audit_run,
)
from forensics.images.geometry import Match
from forensics.preprocess.handling import Untouched
from forensics.training.settings import AuditMode

N = 60
SIDE = PREPARATION.image_size
Save = Callable[[Image.Image, Path, int], None]


def _saved_as_jpeg(image: Image.Image, path: Path, number: int) -> None:
    image.save(path.with_suffix(".jpg"), quality=(88, 92)[number % 2])


@pytest.fixture(scope="module")
def pictures() -> dict[str, list[Image.Image]]:
    """Two sets of one distribution, some larger than a row is."""
    return {
        name: [Image.fromarray(image) for image in photos(N, SIDE + 32, seed)]
        for seed, name in enumerate(("real", "generated"))
    }


@pytest.fixture
def sources(tmp_path: Path, pictures: dict[str, list[Image.Image]]) -> Callable[..., list[Audited]]:
    """Write both sets, the generated ones by a function of one's own, and open them."""

    def make(save: Save = _saved_as_jpeg) -> list[Audited]:
        for name, images in pictures.items():
            (tmp_path / "root" / name).mkdir(parents=True)
            for number, image in enumerate(images):
                saving = save if name == "generated" else _saved_as_jpeg
                saving(image, tmp_path / "root" / name / f"{number:03d}", number)
        return audit_folders(tmp_path / "root", ["real"], ["generated"], tmp_path / "cache")

    return make


def _audit(sources: list[Audited], images: int = N) -> dict[str, Any]:
    return audit(sources, repetitions([one.source for one in sources]), images, seed=0)


def _aurocs(result: dict[str, Any]) -> dict[str, float]:
    return {check["trait"]: check["auroc"] for check in result["traits"]}


def _framed(image: Image.Image) -> Image.Image:
    """Darker in the outermost pixels of what becomes a row."""
    levels = np.array(image, float)
    levels[:2] *= 0.7
    levels[-2:] *= 0.7
    return Image.fromarray(levels.astype(np.uint8))


PLANTED: dict[str, tuple[Save, set[str]]] = {
    "all generated ones PNG": (
        lambda image, path, _: image.save(path.with_suffix(".png")),
        {"format", "jpeg_quality"},
    ),
    "another JPEG quality": (
        lambda image, path, _: image.save(path.with_suffix(".jpg"), quality=93),
        {"jpeg_quality"},
    ),
    "a JPEG quality amid the others": (
        lambda image, path, _: image.save(path.with_suffix(".jpg"), quality=90),
        {"jpeg_quality"},
    ),
    "another size": (
        lambda image, path, _: image.resize((SIDE, SIDE)).save(
            path.with_suffix(".jpg"), quality=90
        ),
        {"size"},
    ),
    "another aspect": (
        lambda image, path, _: image.crop((0, 0, SIDE + 32, SIDE)).save(
            path.with_suffix(".jpg"), quality=90
        ),
        {"aspect", "size"},
    ),
    "enlarged": (
        lambda image, path, number: _saved_as_jpeg(
            image.resize((SIDE // 2,) * 2).resize(image.size, Image.Resampling.BILINEAR),
            path,
            number,
        ),
        {"spectrum"},
    ),
    "bluer": (
        lambda image, path, number: _saved_as_jpeg(
            image.convert("RGB", (0.8, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1.2, 0)), path, number
        ),
        {"colour"},
    ),
    "a frame": (
        lambda image, path, number: _saved_as_jpeg(_framed(image), path, number),
        {"border"},
    ),
}


@pytest.mark.slow
class TestTraits:
    def test_where_nothing_was_planted_nothing_is_found(
        self, sources: Callable[..., list[Audited]]
    ) -> None:
        result = _audit(sources())
        aurocs = _aurocs(result)
        assert aurocs.keys() == TRAITS.keys()
        # Half the difference of two sets of 60 has a standard deviation of 0.05.
        assert all(abs(auroc - 0.5) < 0.2 for auroc in aurocs.values()), aurocs
        assert result["warnings"] == []
        checks = (*result["traits"], *result["repetitions"], *result["across_border"])
        assert {check["verdict"] for check in checks} == {"ok"}
        json.dumps(result, allow_nan=False)

    @pytest.mark.parametrize(("save", "expected"), PLANTED.values(), ids=PLANTED)
    def test_a_planted_shortcut_is_found(
        self, sources: Callable[..., list[Audited]], save: Save, expected: set[str]
    ) -> None:
        result = _audit(sources(save))
        found = {check["trait"] for check in result["traits"] if check["verdict"] == "warning"}
        assert found >= expected, _aurocs(result)
        for trait in expected:
            assert any(TRAITS[trait] in sentence for sentence in result["warnings"])

    def test_exif(self, sources: Callable[..., list[Audited]]) -> None:
        exif = Image.Exif()
        exif[0x0110] = "camera"
        result = _audit(
            sources(lambda image, path, _: image.save(path.with_suffix(".jpg"), exif=exif))
        )
        assert _aurocs(result)["exif"] == 1

    def test_enlarging_twice_shows_in_the_traces_of_resampling(
        self, sources: Callable[..., list[Audited]]
    ) -> None:
        def save(image: Image.Image, path: Path, _: int) -> None:
            small = image.crop((0, 0, SIDE // 2, SIDE // 2))
            small.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(path.with_suffix(".png"))

        assert _aurocs(_audit(sources(save)))["resampling"] >= MAX_AUROC

    def test_of_too_few_images_nothing_is_said(self, sources: Callable[..., list[Audited]]) -> None:
        result = _audit(sources(), images=9)
        assert {check["verdict"] for check in result["traits"]} == {"not measured"}
        assert all("needs 10 real images" in check["says"] for check in result["traits"])
        assert result["warnings"] == []


class TestPairs:
    """Real images of PNG and of JPEG, and two generators of PNG, before a training on both."""

    @pytest.fixture
    def settings(self, faces: Callable[..., DatasetSettings]) -> DatasetSettings:
        settings = faces((60, 60, 60), train_count=40, train_on=["seen", "unseen"])
        jpegs = Path(settings.root, "jpegs")
        jpegs.mkdir()
        for number, image in enumerate(photos(60, settings.image_size, seed=9)):
            Image.fromarray(image).save(jpegs / f"{number:03d}.jpg")
        return settings

    @staticmethod
    def formats(settings: DatasetSettings, cache: Path) -> dict[tuple[str, str], float]:
        """AUROC of the formats by generator and real source, and by an independent path."""
        data = FaceData(settings, Untouched(), 8, 0, cache)
        data.setup()
        result = audit_run(data, AuditMode.warn, seed=0)
        assert result is not None
        checks = [check for check in result["traits"] if check["trait"] == "format"]
        for check in checks:
            suffixes = {
                name: [path.suffix for path in settings.folder(name).iterdir()]
                for name in (check["real"], check["generator"])
            }
            labels = [name == check["real"] for name, of in suffixes.items() for _ in of]
            is_jpeg = [suffix == ".jpg" for of in suffixes.values() for suffix in of]
            assert check["auroc"] == pytest.approx(roc_auc_score(labels, is_jpeg))
        return {(check["generator"], check["real"]): check["auroc"] for check in checks}

    def test_a_generator_is_compared_with_its_own_real_images(
        self, settings: DatasetSettings, tmp_path: Path
    ) -> None:
        paired = dataclasses.replace(settings, real=["real", "jpegs"], pairs={"seen": "real"})
        assert self.formats(paired, tmp_path / "cache") == {
            ("seen", "real"): 0.5,
            ("unseen", "real"): 0.5,
            ("unseen", "jpegs"): 1.0,  # pooled with the others, it would be 0.75: no warning
        }

    def test_without_any_that_train_it_is_compared_with_those_that_do(
        self, settings: DatasetSettings, tmp_path: Path
    ) -> None:
        paired = dataclasses.replace(
            settings, real=["jpegs"], unseen_real=["real"], pairs={"seen": "real"}
        )
        assert self.formats(paired, tmp_path / "cache") == {
            ("seen", "jpegs"): 1.0,
            ("unseen", "jpegs"): 1.0,
        }


@pytest.mark.slow
class TestRepetitions:
    def test_planted_ones_are_counted(
        self, sources: Callable[..., list[Audited]], pictures: dict[str, list[Image.Image]]
    ) -> None:
        def save(image: Image.Image, path: Path, number: int) -> None:
            real = pictures["real"]
            if number in (3, 50):
                return _saved_as_jpeg(real[0], path, 0)  # the very file
            if number == 5:
                return (
                    real[1]
                    .transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                    .save(path.with_suffix(".jpg"), quality=60)
                )
            if number == 7:
                image = pictures["generated"][40]
            return _saved_as_jpeg(image, path, number)

        result = _audit(sources(save))
        of_real, across, of_generated = result["repetitions"]
        assert (of_real["copies"], of_real["near_duplicates"]) == ([0, 0], [0, 0])
        assert (across["copies"], across["near_duplicates"]) == ([1, 2], [2, 3])
        assert (of_generated["copies"], of_generated["near_duplicates"]) == ([2, 2], [4, 4])
        assert result["mirrored_pairs"] == 1
        # 0 and 1 train among the reals; 3 and 7 have theirs at 50 and 40, which test.
        border = {check["source"]: check["near_duplicates"] for check in result["across_border"]}
        assert border == {"real": 1, "generated": 2}
        assert {check["verdict"] for check in (across, of_generated)} == {"warning"}
        assert len(result["warnings"]) == 4


@pytest.mark.slow
class TestBeforeTraining:
    @pytest.fixture
    def data(self, faces: Callable[..., DatasetSettings], tmp_path: Path) -> FaceData:
        settings = faces((60, 60, 10), train_count=40)
        path = Path(settings.root, "real", "000.png")
        path.write_bytes(Path(settings.root, "real", "059.png").read_bytes())
        # Another shade of one that tests; noise has no other near-duplicates.
        image = Image.open(Path(settings.root, "real", "058.png"))
        image.point(lambda level: 0.9 * level).save(Path(settings.root, "real", "001.png"))
        for number in range(60):
            path = Path(settings.root, "seen", f"{number:03d}.png")
            Image.open(path).convert("L").save(path)
        data = FaceData(settings, Untouched(), 8, 0, tmp_path / "cache")
        data.setup()
        return data

    def test_it_warns_of_what_trains_alone(self, data: FaceData) -> None:
        result = audit_run(data, AuditMode.warn, seed=0)
        assert result is not None
        assert {check["generator"] for check in result["traits"]} == {"seen"}
        assert {check["n_real"] for check in result["traits"]} == {len(data.split.train) // 2}
        assert any("seen can be told from real by file formats" in w for w in result["warnings"])
        assert "1 of 39 training images of real are near-duplicates" in result["warnings"][-1]
        assert result == audit_run(data, AuditMode.warn, seed=0)

    @pytest.mark.parametrize(
        ("match", "alike"),
        [(Match.jpeg, {"format", "jpeg_quality"}), (Match.resample, {"size"})],
    )
    def test_it_measures_what_matching_leaves(
        self, data: FaceData, tmp_path: Path, match: Match, alike: set[str]
    ) -> None:
        settings = dataclasses.replace(data.settings, match=match)
        matched = FaceData(settings, Untouched(), 8, 0, tmp_path / "cache")
        matched.setup()
        before, after = (audit_run(one, AuditMode.warn, seed=0) for one in (data, matched))
        assert before is not None
        assert after is not None
        said = {check["trait"]: check["verdict"] for check in after["traits"]}
        assert {trait for trait, verdict in said.items() if verdict == "matched"} == alike
        assert "matched" not in {check["verdict"] for check in before["traits"]}
        formats = [w for w in after["warnings"] if "by file formats" in w]
        assert bool(formats) == (match is not Match.jpeg)
        # Of files nothing changes, of pixels it does.
        assert _aurocs(before)["format"] == _aurocs(after)["format"]
        assert _aurocs(before)["spectrum"] != _aurocs(after)["spectrum"]

    def test_it_fails_in_one_sentence(self, data: FaceData) -> None:
        with pytest.raises(UserError, match=r"The audit has \d+ warnings, the first: seen can be"):
            audit_run(data, AuditMode.fail, seed=0)

    def test_it_is_off(self, data: FaceData) -> None:
        assert audit_run(data, AuditMode.off, seed=0) is None


@pytest.mark.slow
class TestCommand:
    def test_it_prints_and_writes_what_it_finds(
        self,
        tmp_path: Path,
        sources: Callable[..., list[Audited]],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        sources(lambda image, path, _: image.save(path.with_suffix(".png")))
        odd = tmp_path / "root" / "real" / 'a, "b"\n.jpg'
        odd.write_bytes((tmp_path / "root" / "real" / "001.jpg").read_bytes())
        out = tmp_path / "some where" / "audit=1"
        given = ["--root", str(tmp_path / "root"), "--real", "real", "--generated", "generated"]
        given += ["--out", str(out), "--cache-dir", str(tmp_path / "cache")]
        assert main(["audit", *given]) == 0
        printed = capsys.readouterr().out
        result = json.loads((out / "audit.json").read_text())
        assert result["images"]["real"] == {"real": True, "all": 61, "fitted": 31, "tested": 30}
        for check in result["traits"]:
            line = next(one for one in printed.splitlines() if one.startswith(check["trait"] + ","))
            auroc, verdict = re.split(r"  +", line)[-2:]
            assert auroc == f"{check['auroc']:.3f}"
            assert verdict.partition(":")[0] == check["verdict"]
        found = [check for part in ("traits", "across_border") for check in result[part]
                 if check["verdict"] == "warning"]  # fmt: skip
        assert found
        assert len(re.findall(r"  warning: \S", printed)) >= len(found)
        with (out / "duplicates.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {(row["source"], row["path"]) for row in rows} == {
            ("real", odd.name),
            ("real", "001.jpg"),
        }
        assert len({row["group"] for row in rows}) == 1
        with Image.open(out / "spectra.png") as image:
            assert image.format == "PNG"

    @pytest.mark.parametrize(
        "names", [("real", "missing"), ("real", "real"), ("../root/real", "generated"), ("", "x")]
    )
    def test_what_is_no_source_is_named(
        self,
        tmp_path: Path,
        names: tuple[str, str],
        sources: Callable[..., list[Audited]],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        sources()
        given = ["--root", str(tmp_path / "root"), "--real", names[0], "--generated", names[1]]
        assert main(["audit", *given, "--cache-dir", str(tmp_path / "cache")]) == 1
        assert "cannot be audited" in capsys.readouterr().err


@dataclasses.dataclass
class _Numbers:
    """What counts of a source's images for repetitions."""

    name: str
    digests: list[str]
    originals: None = None

    def __len__(self) -> int:
        return len(self.digests)


class TestLimits:
    """How many repetitions are too many, of numbers in the place of images."""

    @staticmethod
    def source(name: str, numbers: list[int], *, real: bool) -> tuple[Audited, Any]:
        """A source that has an image for each number."""
        none = np.empty(0, np.int64)
        images: Any = _Numbers(name, [f"{number}" for number in numbers])
        return Audited(images, Path(), real, none, none, none), np.array(numbers)

    @pytest.mark.parametrize(
        ("first", "second", "same_class", "warned"),
        [
            # One in 200 images of either, half a percent: of one class usual, between two not.
            (range(200), range(199, 399), True, False),
            (range(200), range(199, 399), False, True),
            (range(200), range(200, 400), False, False),
            # 1 of 1000, and 1 of 50: the larger share counts, whichever comes first.
            (range(1000), range(999, 1049), True, True),
            (range(50), range(49, 1049), True, True),
        ],
    )
    def test_between_sources(
        self, first: range, second: range, same_class: bool, warned: bool
    ) -> None:
        audited, groups = zip(
            self.source("a", [*first], real=True),
            self.source("b", [*second], real=same_class),
            strict=True,
        )
        _, across, _ = _repetitions(audited, groups)
        assert across["copies"] == across["near_duplicates"] == 2 * [len({*first} & {*second})]
        assert (across["verdict"] == "warning") is warned
