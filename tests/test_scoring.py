"""A trained detector on new pictures: what comes out, when it is unsure, which files it takes."""

from __future__ import annotations

import dataclasses
import pickle
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
from torch import nn

from forensics.data.images import POLICY_VERSION
from forensics.errors import UserError
from forensics.model_files import save_model
from forensics.scoring import BATCH_SIZE, Detector, Verdict


class MeanRed(nn.Module):
    """Scores an image by its mean red level: something one can work out by hand."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0].mean(dim=(1, 2))


def by_hand(row: NDArray[np.uint8]) -> float:
    return float(row[..., 0].mean() / 127.5 - 1)


@pytest.fixture
def detector() -> Detector:
    return Detector(MeanRed(), detector_card(), "0" * 64)


class TestPredict:
    def test_every_kind_of_picture_gets_the_same_score(
        self, detector: Detector, tmp_path: Path
    ) -> None:
        paths = write_images(tmp_path / "images", 3)
        rows = np.stack([np.asarray(Image.open(path)) for path in paths])
        batch = torch.from_numpy(rows).permute(0, 3, 1, 2)
        expected = [by_hand(row) for row in rows]
        for pictures in (
            paths, map(str, paths), map(Image.open, paths), list(rows), rows, batch
        ):  # fmt: skip
            got = detector.predict(pictures)
            logits = [one.logit for one in got]
            assert logits == pytest.approx(expected, abs=1e-6)
            probabilities = [one.probability_real for one in got]
            assert probabilities == pytest.approx(list(expit(np.array(expected) / 2)), abs=1e-6)
        assert detector.predict(paths[0])[0].format == "PNG"
        assert detector.predict(rows[0])[0].logit == pytest.approx(expected[0], abs=1e-6)

    def test_order_and_number_hold_over_many_batches(
        self, detector: Detector, tmp_path: Path
    ) -> None:
        paths: list[Path] = write_images(tmp_path, 2 * BATCH_SIZE + 3)
        paths[5].write_text("no image")
        got = detector.predict(paths)
        assert len(got) == len(paths)
        for number, (path, one) in enumerate(zip(paths, got, strict=True)):
            if number == 5:
                assert one.error == "neither JPEG, PNG nor WebP by its content"
                assert (one.probability_real, one.verdict, one.width) == (None, None, None)
            else:
                assert one.logit == pytest.approx(by_hand(np.asarray(Image.open(path))), abs=1e-6)

    @pytest.mark.parametrize("kind", ["missing", "folder", "empty", "url", "nul"])
    def test_what_cannot_be_read_has_an_error(
        self, detector: Detector, tmp_path: Path, kind: str
    ) -> None:
        (tmp_path / "empty").touch()
        name = {"folder": ".", "url": "https://example.org/a.png", "nul": "a\0b"}.get(kind, kind)
        picture = name if kind in ("url", "nul") else tmp_path / name
        one = detector.predict([picture])[0]
        assert one.error
        assert one.verdict is None

    def test_size_is_that_of_the_picture_as_shown(self, detector: Detector, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # lies on its side
        Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
        one = detector.predict(tmp_path / "a.jpg")[0]
        assert (one.width, one.height, one.format) == (30, 40, "JPEG")

    @pytest.mark.parametrize(
        "pictures",
        [
            [np.zeros((16, 16, 3), np.float32)],
            [np.zeros((16, 16), np.uint8)],
            [np.zeros((16, 16, 4), np.uint8)],
            torch.zeros(1, 3, 16, 16),
            torch.zeros(3, 16, 16, dtype=torch.uint8),
        ],
    )
    def test_pixels_of_another_kind_are_refused(self, detector: Detector, pictures: Any) -> None:  # noqa: ANN401
        with pytest.raises(UserError, match="uint8"):
            detector.predict(pictures)

    @pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
    def test_it_scores_in_the_numbers_it_was_tested_in(self, precision: str) -> None:
        torch.manual_seed(0)
        network = NETWORK.build(SIZE).eval()
        rows = np.stack([noise(seed) for seed in range(4)])
        images = torch.from_numpy(rows).permute(0, 3, 1, 2) / 127.5 - 1
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
        detector = Detector(network, detector_card(precision=precision), "")
        assert detector.logits(rows) == pytest.approx(expected, abs=1e-4)

    def test_torchs_threads_are_as_before(self, detector: Detector) -> None:
        torch.set_num_threads(2)
        try:
            assert len(detector.predict(noise())) == 1
            stopped = detector.stream([noise(), noise()])
            next(stopped)
            del stopped
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(1)

    def test_a_score_that_is_no_number_is_refused(self) -> None:
        network = NETWORK.build(SIZE).eval()
        with torch.no_grad():
            next(network.parameters()).fill_(float("nan"))
        detector = Detector(network, detector_card(), "0" * 64)
        with pytest.raises(UserError, match="no finite number"):
            detector.predict(np.zeros((SIZE, SIZE, 3), np.uint8))


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
            one = Detector(MeanRed(), detector_card(match=match), "").predict(picture)[0]
            assert one.logit == pytest.approx(by_hand(np.asarray(image)), abs=1e-6)


def test_evidence_may_be_sought_while_other_threads_score(detector_file: Path) -> None:
    detector = Detector.load(detector_file)
    pictures = np.stack([noise(seed) for seed in range(64)])
    alone = detector.evidence(pictures[0])
    scores = detector.logits(pictures)
    with ThreadPoolExecutor(1) as other:
        scored = [other.submit(detector.logits, pictures) for _ in range(50)]
        for _ in range(50):
            np.testing.assert_array_equal(detector.evidence(pictures[0]), alone)
        for one in scored:
            np.testing.assert_array_equal(one.result(), scores)


def noise(seed: int = 1, size: int = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


class TestUnsure:
    """Each reason alone, on pictures where it holds and where it does not."""

    def verdict(self, picture: NDArray[np.uint8], **changes: Any) -> tuple[Verdict | None, str]:  # noqa: ANN401
        one = Detector(MeanRed(), detector_card(**changes), "").predict(picture)[0]
        return one.verdict, one.reason

    def test_a_clear_picture_has_a_verdict_and_no_reason(self) -> None:
        assert self.verdict(noise()) == (Verdict.real, "")
        clear = {"0.5": 0.0, "source_0.05": 100.0, "source_0.01": 99.0}
        assert self.verdict(noise(), thresholds=clear) == (Verdict.generated, "")

    def test_between_the_thresholds(self) -> None:
        between = {"0.5": 0.0, "source_0.05": 5.0, "source_0.01": -5.0}
        verdict, reason = self.verdict(noise(), thresholds=between)
        assert verdict is Verdict.unsure
        assert reason == "score between the thresholds of 1 % and 5 % false alarms"

    def test_a_score_at_a_threshold_is_on_its_real_side(self) -> None:
        grey = np.full((SIZE, SIZE, 3), 255, np.uint8)
        wide = {"spectrum_limit": 1e9}
        at = {"0.5": 0.0, "source_0.05": 1.0, "source_0.01": 1.0}
        assert self.verdict(grey, thresholds=at, **wide) == (Verdict.real, "")

    def test_where_mild_changes_change_the_verdict(self) -> None:
        # Its red is 255 at the border and 0 within: half a pixel less of that is darker.
        framed = np.zeros((SIZE, SIZE, 3), np.uint8)
        framed[[0, -1]] = framed[:, [0, -1]] = 255
        at = by_hand(framed)
        split = {"0.5": 0.0, "source_0.05": at - 0.01, "source_0.01": at - 0.01}
        verdict, reason = self.verdict(framed, thresholds=split, spectrum_limit=1e9)
        assert verdict is Verdict.unsure
        assert "rescaled by half a pixel" in reason
        # Saturated red, of which JPEG keeps a little less.
        red = noise(3)
        red[..., 1:] = 0
        at = by_hand(red)
        split = {"0.5": 0.0, "source_0.05": at, "source_0.01": at}
        _, reason = self.verdict(red, thresholds=split, spectrum_limit=1e9)
        assert "JPEG of quality 90" in reason

    def test_a_picture_smaller_than_the_detector_sees(self) -> None:
        assert self.verdict(noise(size=SIZE)) == (Verdict.real, "")
        verdict, reason = self.verdict(noise(size=SIZE - 1), spectrum_limit=1e9)
        assert verdict is Verdict.unsure
        assert reason == f"smaller than the {SIZE} pixels the detector looks at"

    def test_a_spectrum_unlike_those_of_training(self) -> None:
        smooth = np.tile(np.arange(SIZE, dtype=np.uint8)[:, None, None], (1, SIZE, 3))
        verdict, reason = self.verdict(smooth)
        assert verdict is Verdict.unsure
        assert reason == "spectrum unlike those of the training images"


class TestLoad:
    def test_a_folder_or_a_file_scores_as_the_network_did(self, detector_file: Path) -> None:
        torch.manual_seed(0)
        network = NETWORK.build(SIZE).eval()
        picture = noise()
        images = torch.from_numpy(picture).permute(2, 0, 1)[None]
        expected = network(images / 127.5 - 1).item()
        for path in (detector_file, detector_file.parent, str(detector_file)):
            got = Detector.load(path).predict(picture)[0].logit
            assert got == pytest.approx(expected, abs=1e-6)

    def test_card_and_hash_come_back(self, detector_file: Path) -> None:
        assert Detector.load(detector_file).card == detector_card()
        assert Detector.load(detector_file).sha256 == Detector.load(detector_file.parent).sha256

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"decode_policy": POLICY_VERSION + 1}, "decode_policy is"),
            ({"resize_filter": "magic"}, "magic"),
            ({"precision": "int8"}, "int8"),
            ({"resize_filter": None}, "None"),
            ({"match": "magic"}, "magic"),
            ({"thresholds": {"0.5": 0.0}}, "thresholds lack source_0.05"),
            ({"thresholds": None}, "cannot be scored with"),
            (
                {"thresholds": {"0.5": 0.0, "source_0.05": "high", "source_0.01": 0}},
                "cannot be scored with",
            ),
            ({"temperature": 0}, "temperature is 0"),
            ({"temperature": -1.0}, "temperature is -1"),
            ({"temperature": float("nan")}, "temperature is nan"),
            ({"temperature": "hot"}, "cannot be scored with"),
            ({"spectra": {}}, "spectra of the training images are missing"),
            ({"spectra": {"real": {"mean": [1.0], "std": [1.0]}}}, "is no profile"),
            ({"spectra": {"real": {"mean": "x", "std": []}}}, "cannot be scored with"),
            ({"spectra": [1, 2]}, "cannot be scored with"),
            ({"colour_space": "ntsc"}, "it says colour_space, which is not known here"),
            ({"model_settings": {"channels": [4, 8], "leaky_relu_slope": 7}}, "leaky_relu_slope"),
            ({"model_settings": {"channels": [4, 10**12], "leaky_relu_slope": 0.2}}, "not fit"),
            ({"model_settings": {"channels": [4, 10**30], "leaky_relu_slope": 0.2}}, "not fit"),
            ({"model_settings": "channels"}, "does not fit"),
            ({"model": ["dcgan_discriminator"]}, "not among"),
            ({"image_size": "large"}, "not fit"),
            ({"image_size": 10**40}, "not fit"),
        ],
    )
    def test_a_card_not_for_this_version_is_refused(
        self, detector_file: Path, change: dict[str, Any], said: str
    ) -> None:
        save_model(detector_file, NETWORK.build(SIZE), dataclasses.asdict(detector_card()) | change)
        with pytest.raises(UserError, match=r"detector\.safetensors|leaky") as raised:
            Detector.load(detector_file)
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize(
        "missing", ["temperature", "thresholds", "spectra", "real", "match", "precision"]
    )
    def test_a_card_that_lacks_something_is_refused(
        self, detector_file: Path, missing: str
    ) -> None:
        rest = {k: v for k, v in dataclasses.asdict(detector_card()).items() if k != missing}
        save_model(detector_file, NETWORK.build(SIZE), rest)
        with pytest.raises(UserError, match=f"it says nothing of {missing}"):
            Detector.load(detector_file)

    def test_an_address_in_the_web_is_no_detector(self) -> None:
        with pytest.raises(UserError, match="is no readable file of a network"):
            Detector.load("https://example.org/detector.safetensors")

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
            with pytest.raises(UserError, match="is no readable file of a network"):
                Detector.load(tmp_path / name)
        assert not touched.exists()

    def test_a_run_that_is_not_whole_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"detector\.safetensors is no readable"):
            Detector.load(tmp_path)
