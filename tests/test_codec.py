"""Generated images saved with the real images' codec."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import SIZE, photos
from PIL import Image

from forensics.data.codec import jpeg_qualities, quality_of
from forensics.data.datamodule import FaceData
from forensics.data.settings import DatasetSettings
from forensics.errors import UserError
from forensics.evaluation.audit import audit_run
from forensics.images.geometry import Match
from forensics.preprocess.handling import Untouched
from forensics.training.settings import AuditMode

MakeFaces = Callable[..., DatasetSettings]
QUALITIES = [60, 60, 90]


def as_jpeg(folder: Path) -> None:
    """Replace the images of a folder by JPEGs of rotating qualities."""
    paths = sorted(folder.glob("*.png"))
    for number, (path, image) in enumerate(zip(paths, photos(len(paths), SIZE), strict=True)):
        path.unlink()
        quality = QUALITIES[number % len(QUALITIES)]
        Image.fromarray(image).save(path.with_suffix(".jpg"), quality=quality)


@pytest.fixture
def settings(faces: MakeFaces) -> DatasetSettings:
    """Real JPEGs and generated PNGs."""
    made = faces(match=Match.codec)
    as_jpeg(Path(made.root) / "real")
    return made


def opened(settings: DatasetSettings, cache: Path) -> FaceData:
    data = FaceData(settings, Untouched(), 8, 0, cache)
    data.setup()
    return data


def saved(path: Path, quality: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    file = io.BytesIO()
    Image.open(path).save(file, "jpeg", quality=quality)
    return np.asarray(Image.open(file))


def test_qualities_are_read_back_from_the_first_files_tables(settings: DatasetSettings) -> None:
    found = jpeg_qualities({"real": settings.folder("real")}, 12)
    assert Counter(found) == {60: 8, 90: 4}
    assert list(found) == sorted(found)


def test_the_sha256_chooses_with_equal_chances() -> None:
    names = [hashlib.sha256(bytes([n, m])).hexdigest() for n in range(30) for m in range(30)]
    counts = Counter(quality_of(name, QUALITIES) for name in names)
    assert counts[60] == pytest.approx(600, abs=6 * 900**0.5 * 2**0.5 / 3)
    assert quality_of("f" * 64, QUALITIES) == 90
    assert quality_of("0" * 64, QUALITIES) == 60


def test_generated_images_are_saved_and_real_ones_stay(
    settings: DatasetSettings, tmp_path: Path
) -> None:
    data = opened(settings, tmp_path / "cache")
    qualities = jpeg_qualities({"real": settings.folder("real")}, settings.train_count)
    given = set()
    for source in data.sources:
        for path, row, sha256 in zip(source.paths, source.rows[:], source.sha256, strict=True):
            file = settings.folder(source.name) / path
            expected = np.asarray(Image.open(file))
            if source.name != "real":
                given.add(quality_of(sha256, qualities))
                expected = saved(file, quality_of(sha256, qualities))
            np.testing.assert_array_equal(row, expected)
    assert given == set(QUALITIES)


def test_other_qualities_of_the_real_images_are_other_rows(
    settings: DatasetSettings, tmp_path: Path
) -> None:
    before = opened(settings, tmp_path / "cache").test_hashes()
    for path in settings.folder("real").glob("*.jpg"):
        path.write_bytes(path.read_bytes())  # the same images at another time
    assert opened(settings, tmp_path / "cache").test_hashes() == before
    first = sorted(settings.folder("real").glob("*.jpg"))[0]
    for path in settings.folder("real").glob("*.jpg"):
        Image.open(path).save(path, quality=30)
    assert first.exists()
    after = opened(settings, tmp_path / "cache").test_hashes()
    assert all(after[name] != before[name] for name in before)


def test_real_images_that_are_no_jpegs_are_refused(faces: MakeFaces, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"real/000\.png") as raised:
        opened(faces(match=Match.codec), tmp_path / "cache")
    assert raised.value.key == "dataset.match"


def test_the_audit_measures_what_format_and_quality_still_tell(
    settings: DatasetSettings, tmp_path: Path
) -> None:
    def aurocs(match: Match) -> dict[str, float]:
        settings.match = match
        audited = audit_run(opened(settings, tmp_path / "cache"), AuditMode.warn, 0)
        assert audited is not None
        return {check["trait"]: check["auroc"] for check in audited["traits"]
                if check["generator"] == "seen"}  # fmt: skip

    before, after = aurocs(Match.none), aurocs(Match.codec)
    for trait in ("format", "jpeg_quality"):
        assert before[trait] == 1
        assert after[trait] < 0.8
