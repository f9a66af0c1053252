"""The demo data set: same pixels everywhere, complete folders only, no easy way to cheat."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from forensics.data.demo import artefacts, build
from forensics.errors import UserError
from forensics.progress import Progress

SOURCES = tuple(artefacts.DEMO_SOURCES)
GENERATED = SOURCES[1:]
IMAGES_PER_SOURCE = 160

Images = NDArray[np.uint8]
Features = NDArray[np.float64]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    build.build_demo(root, dict.fromkeys(SOURCES, IMAGES_PER_SOURCE))
    return root


def _read(folder: Path) -> Images:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


@pytest.fixture(scope="module")
def images(built: Path) -> dict[str, Images]:
    return {source: _read(built / source) for source in SOURCES}


@pytest.fixture(scope="module")
def few() -> dict[str, Images]:
    """As many as the quick tier has time for."""
    return {source: np.stack([artefacts.render(source, i) for i in range(12)])
            for source in SOURCES}  # fmt: skip


@pytest.fixture
def drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flat images instead of faces, for what is about folders only."""

    def flat(source: str, index: int) -> Images:
        return np.full((128, 128, 3), index, dtype=np.uint8)

    monkeypatch.setattr(build, "render", flat)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the progress of every build counts, after how many there are to do."""
    counted: list[int] = []
    begin = Progress.__init__

    def beginning(self: Progress, label: str, total: int) -> None:
        counted.append(total)
        begin(self, label, total)

    monkeypatch.setattr(Progress, "__init__", beginning)
    monkeypatch.setattr(Progress, "advance", lambda self: counted.append(1))
    return counted


def _names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name != ".demo.lock")


class TestImages:
    @pytest.mark.parametrize("source", SOURCES)
    def test_shape_and_dtype(self, source: str) -> None:
        image = artefacts.render(source, 0)
        assert image.shape == (128, 128, 3)
        assert image.dtype == np.uint8

    @pytest.mark.slow
    @pytest.mark.parametrize("source", SOURCES)
    def test_workers_draw_what_the_caller_draws_in_any_order(
        self, source: str, images: dict[str, Images]
    ) -> None:
        for number in (33, 2, 17):
            drawn = artefacts.render(source, IMAGES_PER_SOURCE - 1 - number)
            np.testing.assert_array_equal(images[source][number], drawn)

    @pytest.mark.slow
    def test_no_image_comes_twice(self, images: dict[str, Images]) -> None:
        pixels = [image.tobytes() for source in SOURCES for image in images[source]]
        assert len(set(pixels)) == len(SOURCES) * IMAGES_PER_SOURCE

    def test_sources_show_other_people(self) -> None:
        thumbnails = [artefacts.render(source, 3)[::16, ::16].astype(float) for source in SOURCES]
        assert all(np.abs(t - thumbnails[0]).mean() > 5 for t in thumbnails[1:])

    def test_an_unknown_source_is_named(self) -> None:
        with pytest.raises(UserError, match=r"'demo_stylegan' is not a demo source.*demo_real"):
            artefacts.render("demo_stylegan", 0)


class TestBuild:
    @pytest.mark.slow
    def test_folder_holds_the_images_and_says_it_is_a_toy(self, built: Path) -> None:
        names = _names(built / "demo_dcgan")
        assert names == [f"{10**6 - i}.png" for i in range(IMAGES_PER_SOURCE, 0, -1)] + [
            "source.json"
        ]
        assert json.loads((built / "demo_dcgan" / "source.json").read_text()) == {
            "toy": True,
            "generator": "dcgan",
            "render_version": artefacts.RENDER_VERSION,
            "count": IMAGES_PER_SOURCE,
        }
        assert _names(built) == sorted(SOURCES)

    @pytest.mark.usefixtures("drawn_at_once")
    def test_progress_counts_written_images_and_a_second_call_writes_and_shows_none(
        self, tmp_path: Path, shown: list[int]
    ) -> None:
        build.build_demo(tmp_path, {"demo_pggan": 3})
        build.build_demo(tmp_path, {"demo_real": 5, "demo_pggan": 3})
        assert shown == [3, 1, 1, 1, 5, 1, 1, 1, 1, 1]
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
        build.build_demo(tmp_path, {"demo_real": 4, "demo_pggan": 3})
        assert len(shown) == 10
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before

    @pytest.mark.usefixtures("drawn_at_once")
    def test_the_last_images_are_the_same_however_many_there_are(self, tmp_path: Path) -> None:
        for name, count in (("few", 2), ("more", 5)):
            build.build_demo(tmp_path / name, {"demo_dcgan": count})
        few, more = (_read(tmp_path / name / "demo_dcgan") for name in ("few", "more"))
        np.testing.assert_array_equal(few, more[-2:])
        few_names, more_names = (_names(tmp_path / name / "demo_dcgan") for name in ("few", "more"))
        assert few_names == more_names[-3:]  # with source.json

    @pytest.mark.usefixtures("drawn_at_once")
    def test_a_larger_count_or_another_version_is_built_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build.build_demo(tmp_path, {"demo_real": 2})
        build.build_demo(tmp_path, {"demo_real": 4})
        assert len(_read(tmp_path / "demo_real")) == 4
        monkeypatch.setattr(build, "RENDER_VERSION", artefacts.RENDER_VERSION + 1)
        build.build_demo(tmp_path, {"demo_real": 3})
        assert len(_read(tmp_path / "demo_real")) == 3
        assert _names(tmp_path) == ["demo_real"]

    @pytest.mark.usefixtures("drawn_at_once")
    def test_an_interrupted_build_leaves_no_folder_and_keeps_the_old_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as interrupted:
            interrupted.setattr(Progress, "advance", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                build.build_demo(tmp_path, {"demo_real": 40})
        assert _names(tmp_path) == []
        build.build_demo(tmp_path, {"demo_real": 2})
        monkeypatch.setattr(Progress, "advance", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            build.build_demo(tmp_path, {"demo_real": 40})
        assert len(_read(tmp_path / "demo_real")) == 2

    @pytest.mark.usefixtures("drawn_at_once")
    def test_leftovers_of_a_killed_build_are_removed(self, tmp_path: Path) -> None:
        for name in (".demo_real.unfinished", ".demo_real.former"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "000000.png").write_bytes(b"half an image")
        build.build_demo(tmp_path, {"demo_real": 1})
        assert _names(tmp_path) == ["demo_real"]

    @pytest.mark.usefixtures("drawn_at_once")
    def test_two_builds_at_once_end_with_one_whole_folder(
        self, tmp_path: Path, shown: list[int]
    ) -> None:
        with ThreadPoolExecutor(2) as pool:
            counts = {"demo_real": 30}
            for one in [pool.submit(build.build_demo, tmp_path, counts) for _ in range(2)]:
                one.result()
        assert shown == [30] + 30 * [1]
        assert len(_read(tmp_path / "demo_real")) == 30

    @pytest.mark.parametrize("text", [None, "", "[]", '{"toy": false}', '{"toy": true}'])
    def test_a_foreign_folder_stops_the_build_before_it_starts(
        self, tmp_path: Path, text: str | None
    ) -> None:
        foreign = tmp_path / "demo_pggan"
        foreign.mkdir()
        (foreign / "mine.png").write_bytes(b"precious")
        if text is not None:
            (foreign / "source.json").write_text(text)
        with pytest.raises(UserError, match=r"demo_pggan is in the way.*move it elsewhere"):
            build.build_demo(tmp_path, {"demo_real": 1, "demo_pggan": 1})
        assert (foreign / "mine.png").read_bytes() == b"precious"
        assert _names(tmp_path) == ["demo_pggan"]

    @pytest.mark.parametrize(
        ("counts", "message"),
        [
            ({"demo_real": 1, "celebahq": 1}, "'celebahq' is not a demo source"),
            ({"demo_real": 0}, "needs at least 1 image, not 0"),
        ],
    )
    def test_a_wrong_request_writes_nothing(
        self, tmp_path: Path, counts: dict[str, int], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            build.build_demo(tmp_path / "root", counts)
        assert _names(tmp_path) == []


def _grey(images: Images) -> Features:
    return np.asarray(images.mean(axis=3) / 255)


def _thumbnails(images: Images) -> Features:
    blocks = images.reshape(len(images), 8, 16, 8, 16, 3)
    return np.asarray(blocks.mean(axis=(2, 4)).reshape(len(images), -1))


def _colour_statistics(images: Images) -> Features:
    pixels = images.reshape(len(images), -1, 3).astype(float)
    return np.concatenate([pixels.mean(axis=1), pixels.std(axis=1)], axis=1)


def _frame_steps(images: Images) -> Features:
    """Steps between neighbours at each side, against those four pixels inwards."""
    features = []
    for picture in (_grey(images), _grey(images).transpose(0, 2, 1)):
        across = np.log(np.abs(np.diff(picture, axis=1)).mean(axis=2) + 1e-3)  # (N, 127)
        along = np.log(np.abs(np.diff(picture, axis=2)).mean(axis=2) + 1e-3)  # (N, 128)
        features += [
            across[:, 0] - across[:, 4],
            across[:, -1] - across[:, -5],
            along[:, 0] - along[:, 4],
            along[:, -1] - along[:, -5],
        ]
    return np.stack(features, axis=1)


def _auroc(real: Features, generated: Features) -> float:
    """How well a line through features tells the halves that it was not fitted on apart."""
    half = len(real) // 2
    labels = np.repeat([1, 0], half)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000))
    model.fit(np.concatenate([real[:half], generated[:half]]), labels)
    scores = model.decision_function(np.concatenate([real[half:], generated[half:]]))
    return float(roc_auc_score(labels, scores))


class TestDifficulty:
    @pytest.mark.slow
    @pytest.mark.parametrize("features", [_thumbnails, _colour_statistics, _frame_steps])
    @pytest.mark.parametrize("source", GENERATED)
    def test_first_order_statistics_do_not_tell_the_class(
        self, source: str, features: Callable[[Images], Features], images: dict[str, Images]
    ) -> None:
        assert _auroc(features(images["demo_real"]), features(images[source])) < 0.75


def _energy_at_half_sampling(images: Images) -> float:
    """Share of energy at the three frequencies of a period of two pixels, in fine detail."""
    spectrum = np.abs(np.fft.fft2(_grey(images))) ** 2
    peaks = spectrum[:, 0, 64] + spectrum[:, 64, 0] + spectrum[:, 64, 64]
    fine = spectrum[:, 48:80, 48:80].sum(axis=(1, 2))
    return float(np.median(peaks / fine))


class TestArtefacts:
    @pytest.fixture(params=["few", pytest.param("images", marks=pytest.mark.slow)])
    def sample(self, request: pytest.FixtureRequest) -> dict[str, Images]:
        """Images of each source, a few or all."""
        chosen: dict[str, Images] = request.getfixturevalue(request.param)
        return chosen

    def test_transposed_convolution_leaves_the_checkerboard(
        self, sample: dict[str, Images]
    ) -> None:
        real = _energy_at_half_sampling(sample["demo_real"])
        assert _energy_at_half_sampling(sample["demo_dcgan"]) > 1.5 * real

    @pytest.mark.parametrize("source", ["demo_pggan", "demo_wgan_gp"])
    def test_repeated_pixels_differ_less_within_a_block_than_across(
        self, source: str, sample: dict[str, Images]
    ) -> None:
        def within_to_across(images: Images) -> float:
            steps = np.abs(np.diff(_grey(images), axis=2))
            return float(np.median(steps[:, :, ::2].mean((1, 2)) / steps[:, :, 1::2].mean((1, 2))))

        assert within_to_across(sample["demo_real"]) == pytest.approx(1, abs=0.02)
        assert within_to_across(sample[source]) < 0.95
