"""A trained detector on new images: what comes out, when it is unsure, which files it takes."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import NETWORK, SIZE, detector_card, photos, write_images
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit

from forensics.compute import Precision
from forensics.detectors import Detector
from forensics.detectors.base import to_unit_range
from forensics.detectors.card import SpectrumGuard
from forensics.errors import UserError
from forensics.images.decode import POLICY_VERSION
from forensics.images.perturbations import MILD_CHANGES
from forensics.images.spectra import nearest, profiles
from forensics.model_files import save_model
from forensics.scoring import Predictor, Verdict
from forensics.scoring.scorer import Scorer


class MeanRed(Detector):
    """Scores an image by its mean red level: something one can work out by hand."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return to_unit_range(images)[:, 0].mean(dim=(1, 2))


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "jpeg", **options)
    return file.getvalue()


def exif(*entries: tuple[int, int, int]) -> bytes:
    """Exif data with entries of one value each: tag, type and the four bytes of the value."""
    written = b"".join(
        struct.pack("<HHI", tag, kind, 1) + value.to_bytes(4, "little")
        for tag, kind, value in entries
    )
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + written + bytes(4)


def by_hand(row: NDArray[np.uint8]) -> float:
    return float(row[..., 0].mean() / 127.5 - 1)


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(MeanRed(), detector_card(), "0" * 64)


class TestCrop:
    @pytest.fixture
    def cropping(self) -> Predictor:
        card = detector_card(image_size=8, view="crop", crop_size=SIZE + 5, guard=None)
        return Predictor(MeanRed(), card, "0" * 64)

    def test_crops_of_a_grid_are_scored_and_averaged(self, cropping: Predictor) -> None:
        image = np.random.default_rng(0).integers(0, 256, (SIZE + 9, SIZE + 20, 3), np.uint8)
        (prediction,) = cropping.predict(image)
        # 21 native pixels of the centre; three crops of 8 from 0, 6.5 (rounded to 6) and 13 on.
        square = image[2:23, 7:28]
        crops = [
            square[top : top + 8, left : left + 8] for top in (0, 6, 13) for left in (0, 6, 13)
        ]
        assert prediction.logit == pytest.approx(np.mean([by_hand(crop) for crop in crops]))

    def test_a_detector_of_any_size_scores_the_full_square(self, cropping: Predictor) -> None:
        image = np.random.default_rng(0).integers(0, 256, (SIZE + 5, SIZE + 5, 3), np.uint8)
        cropping.scorer.detector.any_size = True  # type: ignore[misc]
        (prediction,) = cropping.predict(image)
        assert prediction.logit == pytest.approx(by_hand(image))

    def test_an_image_smaller_than_the_crop_is_not_scored(self, cropping: Predictor) -> None:
        small = np.zeros((SIZE + 4, 99, 3), np.uint8)
        (prediction,) = cropping.predict(small)
        assert prediction.logit is None
        assert str(SIZE + 5) in prediction.error

    @pytest.mark.parametrize(("view", "crop_size"), [("crop", None), ("crop", 7), ("resize", 8)])
    def test_a_card_whose_crop_does_not_fit_is_refused(
        self, view: str, crop_size: int | None
    ) -> None:
        with pytest.raises(ValueError, match="crop_size"):
            detector_card(image_size=8, view=view, crop_size=crop_size)


class TestPredict:
    def test_every_kind_of_picture_gets_the_same_score(
        self, predictor: Predictor, tmp_path: Path
    ) -> None:
        paths = write_images(tmp_path / "images", 3)
        rows = np.stack([np.asarray(Image.open(path)) for path in paths])
        batch = torch.from_numpy(rows).permute(0, 3, 1, 2)
        expected = [by_hand(row) for row in rows]
        scores = predictor.scorer.score_rows(rows)
        assert scores == pytest.approx(expected, abs=1e-6)
        for pictures in (
            paths, map(str, paths), map(Image.open, paths), list(rows), rows, batch
        ):  # fmt: skip
            got = predictor.predict(pictures)
            assert [one.logit for one in got] == scores.tolist()
            probabilities = [one.probability_real for one in got]
            assert probabilities == pytest.approx(list(expit(np.array(expected) / 2)), abs=1e-6)
        assert predictor.predict(paths[0])[0].format == "PNG"
        assert predictor.predict(rows[0])[0].logit == scores[0]

    def test_order_and_number_of_predictions_hold_over_many_batches(
        self, predictor: Predictor, tmp_path: Path
    ) -> None:
        paths: list[Path] = write_images(tmp_path, 2 * predictor.scorer.batch_size + 3)
        paths[5].write_text("no image")
        got = predictor.predict(paths)
        assert len(got) == len(paths)
        for number, (path, one) in enumerate(zip(paths, got, strict=True)):
            if number == 5:
                assert one.error == "neither JPEG, PNG nor WebP by its content"
                assert (one.probability_real, one.verdict, one.width) == (None, None, None)
            else:
                assert one.logit == pytest.approx(by_hand(np.asarray(Image.open(path))), abs=1e-6)

    @pytest.mark.parametrize("kind", ["missing", "folder", "empty", "url", "nul"])
    def test_what_cannot_be_read_has_an_error(
        self, predictor: Predictor, tmp_path: Path, kind: str
    ) -> None:
        (tmp_path / "empty").touch()
        name = {"folder": ".", "url": "https://example.org/a.png", "nul": "a\0b"}.get(kind, kind)
        picture = name if kind in ("url", "nul") else tmp_path / name
        one = predictor.predict([picture])[0]
        assert one.error
        assert one.verdict is None

    def test_size_is_that_of_the_picture_as_shown(
        self, predictor: Predictor, tmp_path: Path
    ) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # lies on its side
        Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
        one = predictor.predict(tmp_path / "a.jpg")[0]
        assert (one.width, one.height, one.format) == (30, 40, "JPEG")

    @pytest.mark.parametrize(
        "pictures",
        [
            torch.zeros(1, 3, 16, 16),
            torch.zeros(3, 16, 16, dtype=torch.uint8),
        ],
    )
    def test_pixels_of_another_kind_are_refused(self, predictor: Predictor, pictures: Any) -> None:  # noqa: ANN401
        with pytest.raises(UserError, match="uint8"):
            predictor.predict(pictures)

    def test_content_and_open_files_are_scored_as_their_path(
        self, predictor: Predictor, tmp_path: Path
    ) -> None:
        (path,) = write_images(tmp_path, 1)
        expected = predictor.predict(path)
        assert predictor.predict(path.read_bytes()) == expected
        with path.open("rb") as file:
            assert predictor.predict(file) == expected
        assert predictor.predict(io.BytesIO(path.read_bytes())) == expected

    def test_grey_and_transparent_arrays_follow_the_rules_of_files(
        self, predictor: Predictor
    ) -> None:
        red = noise()[..., 0]
        grey = np.repeat(red[..., None], 3, axis=2)
        for given in (red, [red], Image.fromarray(red)):
            assert predictor.predict(given)[0].logit == predictor.predict(grey)[0].logit
        clear = np.concatenate([grey, np.zeros_like(grey[..., :1])], axis=2)
        assert predictor.predict(clear)[0].logit == pytest.approx(1)  # white

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (np.zeros((16, 16, 3), np.float32), "float32"),
            (np.zeros((16, 16, 2), np.uint8), "(16, 16, 2)"),
            (np.zeros((2, 16, 16, 3), np.uint8), "(2, 16, 16, 3)"),
            (np.zeros((0, 0, 3), np.uint8), "0x0"),
            (Image.new("RGB", (0, 0)), "0x0"),
            (Image.new("F", (16, 16), 0.5), "mode F"),
            (Image.new("I", (16, 16), 200), "mode I"),
            (b"", "an empty file"),
            (b"<!DOCTYPE html><html>", "HTML"),
            (io.StringIO("text"), "StringIO"),
            (7, "int"),
            (None, "NoneType"),
            (torch.zeros(3, 16, 16, dtype=torch.uint8), "Tensor"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_what_is_no_image_is_one_error_among_others(
        self,
        predictor: Predictor,
        given: Any,  # noqa: ANN401
        said: str,
    ) -> None:
        good = noise()
        before, one, after = predictor.predict([good, given, good])
        assert said in one.error
        assert (one.verdict, one.logit) == (None, None)
        assert before.logit == after.logit == predictor.predict(good)[0].logit

    def test_a_lazily_opened_broken_image_is_one_error_among_others(
        self, predictor: Predictor, tmp_path: Path
    ) -> None:
        content = jpeg(Image.fromarray(photos(1, 128)[0]))
        (tmp_path / "a.jpg").write_bytes(content[:-200])
        closed = Image.open(io.BytesIO(content))
        closed.close()
        good = noise()
        with Image.open(tmp_path / "a.jpg") as cut:
            for broken in (cut, closed):
                before, one, after = predictor.predict([good, broken, good])
                assert one.error
                assert one.verdict is None
                assert before.logit == after.logit is not None

    @pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "MPO"])
    def test_an_opened_animation_is_refused_like_its_file(
        self, predictor: Predictor, format_: str
    ) -> None:
        first, second = (Image.fromarray(one) for one in photos(2, 40))
        file = io.BytesIO()
        first.save(file, format_, save_all=True, append_images=[second])
        with Image.open(file) as opened:
            frame = opened.copy()
            one, of_frame = predictor.predict([opened, frame])
        assert of_frame.error == ""
        assert ("animation" in one.error) == (format_ != "MPO")  # photographs with a preview

    @pytest.mark.parametrize("tag", [0x0100, 0x0103, 0x011A, 0x8769])
    def test_odd_exif_of_an_opened_image_does_not_matter(
        self, predictor: Predictor, tag: int
    ) -> None:
        pixels = Image.fromarray(photos(1, 40)[0][:30])
        turned = Image.open(
            io.BytesIO(jpeg(pixels, exif=exif((tag, 4, 2**32 - 1), (0x0112, 3, 6))))
        )
        one = predictor.predict(turned)[0]
        assert (one.width, one.height, one.error) == (30, 40, "")

    def test_a_damaged_jpeg_is_unsure_and_says_so(self, predictor: Predictor) -> None:
        content = jpeg(Image.fromarray(photos(1, 64)[0]))
        assert "damaged" not in predictor.predict(content)[0].reason
        one = predictor.predict(content[:-2] + b"\x12\x34\x56\x78" * 8 + content[-2:])[0]
        assert one.verdict is Verdict.unsure
        assert "damaged: " in one.reason
        assert "extraneous bytes" in one.reason

    @pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
    def test_predictor_scores_in_the_precision_it_was_tested_in(self, precision: str) -> None:
        torch.manual_seed(0)
        network = NETWORK.build(SIZE, pretrained=False).eval()
        rows = np.stack([noise(seed) for seed in range(4)])
        images = torch.from_numpy(rows).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            list(network.parameters())[-2].mul_(1000)  # the last unit's: scores as of a trained one
            exact = network(images).numpy()
            with torch.autocast("cpu", torch.bfloat16):
                rounded = network(images).numpy()
        assert np.abs(rounded - exact).max() > 1e-3
        natively = torch.cpu._is_avx512_bf16_supported()
        expected = (
            rounded if precision == "bf16" or (precision, natively) == ("auto", True) else exact
        )
        predictor = Predictor(network, detector_card(precision=precision), "")
        scores = predictor.scorer.score_rows(rows)
        assert scores == pytest.approx(expected, abs=1e-4)
        assert [one.logit for one in predictor.predict(rows)] == scores.tolist()

    def test_torchs_threads_are_as_before(self, predictor: Predictor) -> None:
        torch.set_num_threads(2)
        try:
            assert len(predictor.predict(noise())) == 1
            stopped = predictor.stream([noise(), noise()])
            next(stopped)
            del stopped
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(1)

    def test_a_score_that_is_no_number_is_refused(self) -> None:
        network = NETWORK.build(SIZE, pretrained=False).eval()
        with torch.no_grad():
            next(network.parameters()).fill_(float("nan"))
        predictor = Predictor(network, detector_card(), "0" * 64)
        with pytest.raises(UserError) as raised:
            predictor.predict(np.zeros((SIZE, SIZE, 3), np.uint8))
        assert raised.value.key == "model.learning_rate"


class TestScorer:
    @pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
    def test_a_score_is_the_same_to_the_bit_in_any_company_and_place(
        self, precision: Precision
    ) -> None:
        torch.manual_seed(0)
        scorer = Scorer(NETWORK.build(SIZE, pretrained=False), precision)
        rows = np.stack([noise(seed) for seed in range(scorer.batch_size + 5)])
        scores = scorer.score_rows(rows)
        assert len(set(scores.tolist())) == len(rows)
        order = np.random.default_rng(0).permutation(len(rows))
        np.testing.assert_array_equal(scorer.score_rows(rows[order]), scores[order])
        alone = [scorer.score_rows(row[None])[0] for row in rows]
        np.testing.assert_array_equal(alone, scores)
        small = scorer.score_rows(rows, 8)
        np.testing.assert_array_equal(scorer.score_rows(rows[order], 8), small[order])
        assert small == pytest.approx(scores, abs=1e-2)
        streamed = scorer.scores(len(rows), lambda number: rows[number], label="score")
        np.testing.assert_array_equal(streamed, scores)

    def test_features_are_those_of_the_detector_one_row_an_image(self) -> None:
        torch.manual_seed(0)
        network = NETWORK.build(SIZE, pretrained=False)
        scorer = Scorer(network, Precision.fp32)
        rows = np.stack([noise(seed) for seed in range(scorer.batch_size + 5)])
        features = scorer.features(rows)
        assert features is not None
        with torch.no_grad():
            expected = network.features(scorer.crops(rows)[0]).flatten(1).cpu().numpy()
        np.testing.assert_allclose(features, expected, atol=1e-6)

    def test_a_detector_without_features_has_none(self) -> None:
        assert Scorer(MeanRed(), Precision.fp32).features(noise()[None]) is None

    def test_no_images_have_no_scores(self) -> None:
        scorer = Scorer(MeanRed(), Precision.fp32)
        assert scorer.score_rows(noise()[None][:0]).shape == (0,)
        assert scorer.scores(0, lambda number: noise(number), label="score").shape == (0,)


class TestCopies:
    """Mildly changed copies are made where they could change a verdict."""

    def predictor(self, **changes: Any) -> Predictor:  # noqa: ANN401
        torch.manual_seed(0)
        network = NETWORK.build(SIZE, pretrained=False).eval()
        return Predictor(network, detector_card(guard=None, **changes), "")

    @pytest.mark.slow
    def test_verdicts_of_a_thousand_images_are_those_with_all_copies(self) -> None:
        images = photos(1400, SIZE)
        validation, new = images[:400], images[400:]
        scorer = self.predictor().scorer
        scores = scorer.score_rows(validation)
        largest = {
            name: float(
                np.abs(scorer.score_rows(np.stack(list(map(change, validation)))) - scores).max()
            )
            for name, change in MILD_CHANGES.items()
        }
        low, high = np.quantile(scores, [0.02, 0.06]).tolist()
        predictor = self.predictor(
            thresholds={"source_0.05": high, "source_0.01": low}, largest_changes=largest
        )
        few = predictor.predict(list(new))
        predictor.check_all()
        every = predictor.predict(list(new))
        assert {one.copies for one in every} == {"jpeg rescale"}
        assert [one._replace(copies="jpeg rescale") for one in few] == every
        assert len({one.verdict for one in every}) == 3
        assert sum("verdict changes" in one.reason for one in every) > 5
        assert sum(one.copies == "" for one in few) > 500

    def test_distance_to_the_nearest_threshold_decides_for_each_change(self) -> None:
        thresholds = {"source_0.05": 0.5, "source_0.01": -0.5}
        largest = {"jpeg": 0.05, "rescale": 0.1}
        predictor = Predictor(
            MeanRed(),
            detector_card(guard=None, thresholds=thresholds, largest_changes=largest), "",
        )  # fmt: skip
        expected = {
            0.71: "", 0.69: "rescale", 0.61: "rescale", 0.59: "jpeg rescale", 0.5: "jpeg rescale",
            0.35: "rescale", 0.0: "", -0.41: "jpeg rescale", -0.69: "rescale", -0.71: "",
        }  # fmt: skip
        greys = [round(127.5 * (score + 1)) for score in expected]
        images = [np.full((SIZE, SIZE, 3), grey, np.uint8) for grey in greys]
        got = predictor.predict(images)
        assert [one.copies for one in got] == list(expected.values())

    @pytest.mark.parametrize("largest", [None, {"jpeg": 0.0}])
    def test_what_the_file_does_not_tell_is_checked(self, largest: dict[str, float] | None) -> None:
        (one,) = self.predictor(largest_changes=largest).predict(noise())
        assert one.copies == ("jpeg rescale" if largest is None else "rescale")

    def test_an_unread_image_has_no_copies(self, predictor: Predictor) -> None:
        assert predictor.predict(b"no image")[0].copies is None


class TestMatched:
    def test_a_picture_is_matched_as_the_tested_ones_were(self, tmp_path: Path) -> None:
        picture = photos(1, 40)[0]
        square = Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        square.save(tmp_path / "again.jpg", quality=75)
        half = square.resize((SIZE // 2,) * 2, Image.Resampling.LANCZOS)
        enlarged = half.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        expected = {
            "none": square,
            "jpeg": Image.open(tmp_path / "again.jpg"),
            "resample": enlarged,
        }
        for match, image in expected.items():
            one = Predictor(MeanRed(), detector_card(match=match), "").predict(picture)[0]
            assert one.logit == pytest.approx(by_hand(np.asarray(image)), abs=1e-6)

    def test_changed_copies_are_matched_after_the_change(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        predictor = Predictor(MeanRed(), detector_card(match="jpeg"), "")
        scored: list[NDArray[np.uint8]] = []

        def score_rows(
            rows: NDArray[np.uint8], batch_size: int | None = None
        ) -> NDArray[np.float32]:
            scored.append(rows)
            return np.zeros(len(rows), np.float32)

        monkeypatch.setattr(predictor.scorer, "score_rows", score_rows)
        picture = photos(1, SIZE)[0]
        predictor.predict(picture)
        (itself,), (compressed, rescaled) = scored

        def saved(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
            Image.fromarray(image).save(tmp_path / "x.jpg", quality=quality)
            return np.asarray(Image.open(tmp_path / "x.jpg"))

        np.testing.assert_array_equal(itself, saved(picture, 75))
        np.testing.assert_array_equal(compressed, saved(saved(picture, 90), 75))
        inner = (0.5, 0.5, SIZE - 0.5, SIZE - 0.5)
        zoom = Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BICUBIC, inner)
        np.testing.assert_array_equal(rescaled, saved(np.asarray(zoom), 75))


def test_evidence_may_be_sought_while_other_threads_score(detector_file: Path) -> None:
    predictor = Predictor.load(detector_file)
    pictures = np.stack([noise(seed) for seed in range(64)])
    alone = predictor.evidence(pictures[0])
    scores = predictor.scorer.score_rows(pictures)
    with ThreadPoolExecutor(1) as other:
        scored = [other.submit(predictor.scorer.score_rows, pictures) for _ in range(50)]
        for _ in range(50):
            np.testing.assert_array_equal(predictor.evidence(pictures[0]), alone)
        for one in scored:
            np.testing.assert_array_equal(one.result(), scores)


def noise(seed: int = 1, size: int = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


WIDE = SpectrumGuard(detector_card().guard.spectra, 1e9)  # type: ignore[union-attr]
"""No spectrum is unlike these."""


class TestUnsure:
    """Each reason alone, on images where it holds and where it does not."""

    def verdict(self, picture: NDArray[np.uint8], **changes: Any) -> tuple[Verdict | None, str]:  # noqa: ANN401
        one = Predictor(MeanRed(), detector_card(**changes), "").predict(picture)[0]
        return one.verdict, one.reason

    def test_a_clear_picture_has_a_verdict_and_no_reason(self) -> None:
        assert self.verdict(noise()) == (Verdict.real, "")
        clear = {"0.5": 0.0, "source_0.05": 100.0, "source_0.01": 99.0}
        assert self.verdict(noise(), thresholds=clear) == (Verdict.generated, "")

    def test_score_between_the_thresholds_is_unsure(self) -> None:
        between = {"0.5": 0.0, "source_0.05": 5.0, "source_0.01": -5.0}
        verdict, reason = self.verdict(noise(), thresholds=between)
        assert verdict is Verdict.unsure
        assert reason == "score between the thresholds at 1 % and 5 % FPR"

    def test_a_score_at_a_threshold_is_on_its_real_side(self) -> None:
        grey = np.full((SIZE, SIZE, 3), 255, np.uint8)
        at = {"0.5": 0.0, "source_0.05": 1.0, "source_0.01": 1.0}
        assert self.verdict(grey, thresholds=at, guard=WIDE) == (Verdict.real, "")

    def test_a_score_at_the_lower_threshold_is_not_called_generated(self) -> None:
        white = np.full((SIZE, SIZE, 3), 255, np.uint8)
        at = {"0.5": 0.0, "source_0.05": 2.0, "source_0.01": 1.0}
        verdict, reason = self.verdict(white, thresholds=at, guard=WIDE)
        assert verdict is Verdict.unsure
        assert reason == "score between the thresholds at 1 % and 5 % FPR"

    def test_verdict_that_mild_changes_change_is_unsure(self) -> None:
        # Its red is 255 at the border and 0 within: half a pixel less of that is darker.
        framed = np.zeros((SIZE, SIZE, 3), np.uint8)
        framed[[0, -1]] = framed[:, [0, -1]] = 255
        at = by_hand(framed)
        split = {"0.5": 0.0, "source_0.05": at - 0.01, "source_0.01": at - 0.01}
        verdict, reason = self.verdict(framed, thresholds=split, guard=WIDE)
        assert verdict is Verdict.unsure
        assert "rescaled by half a pixel" in reason
        # Saturated red, of which JPEG keeps a little less.
        red = noise(3)
        red[..., 1:] = 0
        at = by_hand(red)
        split = {"0.5": 0.0, "source_0.05": at, "source_0.01": at}
        _, reason = self.verdict(red, thresholds=split, guard=WIDE)
        assert "JPEG of quality 90" in reason

    def test_picture_smaller_than_the_detector_sees_is_unsure(self) -> None:
        assert self.verdict(noise(size=SIZE)) == (Verdict.real, "")
        verdict, reason = self.verdict(noise(size=SIZE - 1), guard=WIDE)
        assert verdict is Verdict.unsure
        assert reason == f"smaller than the {SIZE} pixels the detector looks at"

    def test_the_shorter_side_decides(self) -> None:
        for low in (noise(size=SIZE)[1:], noise(size=SIZE)[:, 1:]):
            _, reason = self.verdict(low, guard=WIDE)
            assert reason == f"smaller than the {SIZE} pixels the detector looks at"

    def test_spectrum_unlike_those_of_training_is_unsure(self) -> None:
        smooth = np.tile(np.arange(SIZE, dtype=np.uint8)[:, None, None], (1, SIZE, 3))
        verdict, reason = self.verdict(smooth)
        assert verdict is Verdict.unsure
        assert reason == "spectrum unlike those of the training images"

    def test_a_spectrum_at_the_limit_is_like_those_of_training(self) -> None:
        smooth = np.tile(np.arange(SIZE, dtype=np.uint8)[:, None, None], (1, SIZE, 3))
        distance = float(nearest(profiles(smooth[None]), WIDE.spectra)[0])
        at, below = (SpectrumGuard(WIDE.spectra, limit)
                     for limit in (distance, np.nextafter(distance, 0)))  # fmt: skip
        assert "spectrum" not in self.verdict(smooth, guard=at)[1]
        assert "spectrum" in self.verdict(smooth, guard=below)[1]


def test_without_a_guard_no_spectrum_is_unlike() -> None:
    smooth = np.tile(np.arange(SIZE, dtype=np.uint8)[:, None, None], (1, SIZE, 3))
    one = Predictor(MeanRed(), detector_card(guard=None), "").predict(smooth)[0]
    assert (one.verdict, one.reason) == (Verdict.real, "")


def test_without_calibration_there_is_a_verdict_but_no_probability() -> None:
    thresholds = {"source_0.05": -99.0, "source_0.01": -100.0}
    card = detector_card(thresholds=thresholds, offset=None, temperature=None)
    one = Predictor(MeanRed(), card, "").predict(noise())[0]
    assert (one.probability_real, one.verdict) == (None, Verdict.real)
    assert one.logit == pytest.approx(by_hand(noise()), abs=1e-6)


def places(place: str) -> list[str]:
    """The keys on the way to a place; those of thresholds may have a dot in them."""
    section, dot, threshold = place.partition(".thresholds.")
    return [section, "thresholds", threshold] if dot else place.split(".")


def rewrite(path: Path, place: str, *value: object) -> None:
    """Write a detector's file with another value at one place of its card, or with none."""
    card = detector_card().to_file()
    *way, name = places(place)
    section = card
    for key in way:
        section = section[key]
    if value:
        (section[name],) = value
    else:
        del section[name]
    save_model(path, NETWORK.build(SIZE, pretrained=False), card)


class TestLoad:
    def test_a_folder_or_a_file_scores_as_the_network_did(self, detector_file: Path) -> None:
        torch.manual_seed(0)
        network = NETWORK.build(SIZE, pretrained=False).eval()
        picture = noise()
        alone = network(torch.from_numpy(picture).permute(2, 0, 1)[None].float()).item()
        (expected,) = Scorer(network, Precision.fp32).score_rows(picture[None])
        assert expected == pytest.approx(alone, abs=1e-6)
        for path in (detector_file, detector_file.parent, str(detector_file)):
            assert Predictor.load(path).predict(picture)[0].logit == expected

    def test_card_and_hash_come_back(self, detector_file: Path) -> None:
        assert Predictor.load(detector_file).card == detector_card()
        assert Predictor.load(detector_file).sha256 == Predictor.load(detector_file.parent).sha256

    @pytest.mark.parametrize(
        ("place", "value", "said"),
        [
            ("input.decode_policy", POLICY_VERSION + 1, str(POLICY_VERSION + 1)),
            ("input.resize_filter", "magic", "magic"),
            ("input.resize_filter", None, "None"),
            ("input.match", "magic", "magic"),
            ("input.precision", "int8", "int8"),
            ("input.image_size", 2 * SIZE, ""),
            ("input.colour_space", "ntsc", "colour_space"),
            ("calibration.thresholds", {"0.5": 0.0}, "source_0.05"),
            ("calibration.thresholds", None, ""),
            ("calibration.thresholds.source_0.01", "high", ""),
            ("calibration.thresholds.source_0.01", float("nan"), "source_0.01 is nan"),
            ("calibration.temperature", 0, "temperature is 0"),
            ("calibration.temperature", -1.0, "temperature is -1"),
            ("calibration.temperature", float("nan"), "temperature is nan"),
            ("calibration.temperature", float("inf"), "temperature is inf"),
            ("calibration.temperature", "hot", ""),
            ("calibration.temperature", None, "temperature"),
            ("calibration.offset", None, "offset"),
            ("calibration.offset", float("inf"), "offset is inf"),
            ("calibration.largest_changes", {"jpeg": -0.1}, "jpeg is -0.1"),
            ("calibration.largest_changes", {"jpeg": float("nan")}, "jpeg is nan"),
            ("calibration.largest_changes", [0.1], ""),
            ("guard.spectra", {}, "spectra"),
            ("guard.spectra", {"real": {"mean": [1.0], "std": [1.0]}}, "real"),
            ("guard.spectra", {"real": {"mean": "x", "std": []}}, ""),
            ("guard.spectra", [1, 2], ""),
            ("guard.limit", float("nan"), ""),
            ("guard", 7, ""),
            ("provenance.photographer", "A. Nonymous", "photographer"),
            ("colour_space", "ntsc", "colour_space"),
            ("network.depth", 4, "depth"),
            ("network.settings.leaky_relu_slope", "steep", "dcgan_discriminator"),
            ("network.settings.channels", [4, 10**12], "dcgan_discriminator"),
            ("network.settings.channels", [4, 10**30], "dcgan_discriminator"),
            ("network.settings.schedule", "magic", "magic"),
            ("network.settings.momentum", 0.9, "momentum"),
            ("network.settings", "channels", "dcgan_discriminator"),
            ("network.name", ["dcgan_discriminator"], "not among"),
            ("network.image_size", "large", "dcgan_discriminator"),
            ("network.image_size", 10**40, "dcgan_discriminator"),
        ],
    )
    def test_a_card_not_for_this_version_is_refused(
        self, detector_file: Path, place: str, value: object, said: str
    ) -> None:
        rewrite(detector_file, place, value)
        with pytest.raises(UserError) as raised:
            Predictor.load(detector_file)
        assert raised.value.key == str(detector_file)
        assert str(detector_file) in str(raised.value)
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize(
        ("place", "value", "key"),
        [
            ("network.settings.leaky_relu_slope", 7, "model.leaky_relu_slope"),
            ("network.settings.betas", [0.5, 1], "model.betas"),
            ("network.image_size", SIZE + 1, "dataset.image_size"),
        ],
    )
    def test_settings_out_of_range_are_refused_with_file_and_key(
        self, detector_file: Path, place: str, value: object, key: str
    ) -> None:
        rewrite(detector_file, place, value)
        with pytest.raises(UserError) as raised:
            Predictor.load(detector_file)
        assert raised.value.key == str(detector_file)
        assert key in str(raised.value)

    @pytest.mark.parametrize(
        "missing",
        [
            *("network", "input", "calibration", "guard", "provenance"),
            *("network.name", "network.settings", "network.image_size"),
            *("network.settings.channels", "network.settings.betas"),
            *("input.match", "input.precision", "guard.spectra", "guard.limit"),
            *("calibration.temperature", "calibration.offset", "calibration.thresholds"),
            *("calibration.thresholds.source_0.01", "provenance.real"),
        ],
    )
    def test_a_card_that_lacks_something_is_refused(
        self, detector_file: Path, missing: str
    ) -> None:
        rewrite(detector_file, missing)
        with pytest.raises(UserError) as raised:
            Predictor.load(detector_file)
        assert raised.value.key == str(detector_file)
        assert places(missing)[-1] in str(raised.value)

    def test_an_address_in_the_web_is_no_detector(self) -> None:
        with pytest.raises(UserError) as raised:
            Predictor.load("https://example.org/detector.safetensors")
        assert raised.value.key == str(Path("https://example.org/detector.safetensors"))

    def test_a_checkpoint_is_refused_and_not_run(self, tmp_path: Path) -> None:
        touched = tmp_path / "touched"

        class Trap:
            def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
                return Path.touch, (touched,)

        for name, write in (
            ("a.ckpt", lambda path: torch.save({"state_dict": Trap()}, path)),
            ("a.pt", lambda path: path.write_bytes(pickle.dumps(Trap()))),
        ):
            write(tmp_path / name)
            with pytest.raises(UserError) as raised:
                Predictor.load(tmp_path / name)
            assert raised.value.key == str(tmp_path / name)
        assert not touched.exists()

    def test_a_run_that_is_not_whole_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError) as raised:
            Predictor.load(tmp_path)
        assert raised.value.key == str(tmp_path)
