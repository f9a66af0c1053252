"""`forensics predict` without a table: text in a terminal, csv for programs."""

import csv
import io
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import NETWORK, SIZE, detector_card, write_images

from forensics.cli import main
from forensics.scoring import Predictor
from forensics.scoring.text import (
    WIDTH,
    Limits,
    beside,
    common_folder,
    probability_text,
    sentence,
    table_lines,
)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Ten images below ``photos``, named as seen from the working folder."""
    monkeypatch.chdir(tmp_path)
    return write_images(Path("photos"), 10)


def row(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    usual = {
        "path": "a.jpg", "probability_real": 0.75, "logit": 1.5, "verdict": "real", "reason": "",
        "width": 9, "height": 9, "format": "JPEG", "error": "",
    }  # fmt: skip
    return usual | changes


LIMITS = Limits(0.25, 0.5)


class TestText:
    @pytest.mark.parametrize(
        ("verdict", "probability", "limits", "said"),
        [
            ("generated", 0.85, Limits(0.916, 0.95), "below 0.916"),
            ("generated", 0.2, Limits(0.916, 0.95), ""),
            ("real", 0.3, Limits(0.1, 0.2), "not below 0.200"),
            ("real", 0.97, Limits(0.916, 0.95), ""),
            ("unsure", 0.93, Limits(0.916, 0.95), ""),
            ("generated", 0.85, None, ""),
            ("generated", None, LIMITS, ""),
        ],
    )
    def test_a_probability_that_reads_contrary_to_its_verdict_is_explained(
        self, verdict: str, probability: float | None, limits: Limits | None, said: str
    ) -> None:
        assert beside(row(verdict=verdict, probability_real=probability), limits) == said

    def test_limits_are_the_probabilities_of_the_thresholds(self, detector_file: Path) -> None:
        network = NETWORK.build(SIZE, pretrained=False)
        at = {"0.5": 0.0, "source_0.05": 2.0, "source_0.01": 1.0}
        # Platt's: 1 / (1 + exp(-score / 2)).
        expected = (0.6224593312, 0.7310585786)
        limits = Limits.of(Predictor(network, detector_card(thresholds=at), ""))
        assert limits == pytest.approx(expected)
        uncalibrated = detector_card(thresholds=at)
        uncalibrated.calibration.offset = uncalibrated.calibration.temperature = None
        assert Limits.of(Predictor(network, uncalibrated, "")) is None

    @pytest.mark.parametrize(
        ("paths", "folder"),
        [
            (["/a/b/c.jpg", "/a/b/d.jpg"], "/a/b/"),
            (["/a/b/c.jpg", "/a/bd/d.jpg"], "/a/"),
            (["/a/b/c.jpg", "/d.jpg"], "/"),
            (["a/b.jpg", "a/b/c.jpg"], "a/"),
            (["a.jpg", "b.jpg"], ""),
            (["a/b.jpg", "/a/b.jpg"], ""),
            (["a/b//c.jpg", "a/b/d.jpg"], "a/b/"),
            (["./a/b.jpg", "a/c.jpg"], ""),
            (["a/b.jpg"], ""),
        ],
    )
    def test_the_folder_that_all_share(self, paths: list[str], folder: str) -> None:
        assert common_folder(paths) == folder
        assert all(path.startswith(folder) for path in paths)

    def test_a_sentence_for_one_image(self) -> None:
        said = sentence(row(verdict="generated", probability_real=0.85), Limits(0.916, 0.95))
        assert said == "a.jpg: generated, probability of real 0.850, below 0.916."
        said = sentence(row(verdict="unsure", reason="too small"), LIMITS)
        assert said == "a.jpg: unsure, probability of real 0.750; too small."
        assert sentence(row(probability_real=None), None) == "a.jpg: real, score 1.5."
        unread = row(verdict=None, probability_real=None, logit=None, error="no such file")
        assert sentence(unread, LIMITS) == "a.jpg cannot be scored: no such file."

    def test_probabilities_never_read_as_certain(self) -> None:
        given = [None, 0.0, 0.0009, 0.0011, 0.5, 0.9991, 1.0]
        expected = ["-", "< 0.001", "< 0.001", "0.001", "0.500", "> 0.999", "> 0.999"]
        assert [probability_text(one) for one in given] == expected

    def test_no_line_of_the_table_is_wider_than_a_terminal(self) -> None:
        reason = "verdict changes when saved as JPEG of quality 90; " * 4
        for name in ("a.jpg", "n" * 300, "folder/" * 30 + "a.jpg", "\x1b[31m\n\ttext.jpg"):
            given = row(path=name, reason=reason, verdict="unsure")
            lines = list(table_lines(given, LIMITS, ""))
            assert len(lines) >= 4
            assert all(len(line) <= WIDTH and line.isprintable() for line in lines)
        assert lines[0].endswith(r"\x1b[31m\n\ttext.jpg")
        assert lines[1].strip().startswith("verdict changes")


class TestCommand:
    def test_one_image_is_told_in_a_sentence(
        self, images: list[Path], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["predict", str(detector_file), str(images[0])]) == 0
        (scored,) = Predictor.load(detector_file).predict(images[0])
        out = " ".join(capsys.readouterr().out.split())
        assert f"photos/000.png: {scored.verdict}, probability of real " in out
        assert probability_text(scored.probability_real) in out
        assert scored.reason in out

    def test_several_are_a_table_with_the_reason_of_each_unreadable_one(
        self, images: list[Path], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        images[3].write_text("no image")
        assert main(["predict", str(detector_file), "photos"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "Files in photos/"
        assert [line.split()[-1] for line in lines if line.endswith(".png")] == [
            path.name for path in images
        ]
        (broken,) = (number for number, line in enumerate(lines) if line.endswith("003.png"))
        assert lines[broken].startswith("unreadable")
        assert "neither JPEG, PNG nor WebP" in lines[broken + 1]
        assert lines[-1].endswith("1 unreadable")
        assert max(map(len, lines)) <= WIDTH
        assert sorted(path.name for path in Path().iterdir()) == ["photos", "run"]

    def test_a_dash_prints_the_same_csv_as_a_file_has_and_nothing_else(
        self, images: list[Path], detector_file: Path, capfdbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        images[3].write_text("no image")
        command = ["predict", str(detector_file), "photos", "-o"]
        assert main([*command, "a.csv"]) == 0
        capfdbinary.readouterr()
        assert main([*command, "-"]) == 0
        out, err = capfdbinary.readouterr()
        assert out == Path("a.csv").read_bytes()
        assert len(list(csv.DictReader(io.StringIO(out.decode(), newline="")))) == 10
        assert b"10 files: " in err

    def test_a_table_says_on_the_spot_what_the_first_unreadable_files_are(
        self, images: list[Path], detector_file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for path in images[:7]:
            path.write_text("no image")
        assert main(["predict", str(detector_file), "photos", "-o", "a.csv"]) == 0
        told = [message for message in caplog.messages if "cannot be scored" in message]
        assert [message.split()[0] for message in told[:-1]] == [str(p) for p in images[:5]]
        assert all("neither JPEG" in message for message in told[:-1])
        assert len(told) == 6

    def test_none_readable_is_an_error(
        self, images: list[Path], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["predict", str(detector_file), "gone.png"]) == 1
        assert "gone.png cannot be scored: no such file." in capsys.readouterr().out

    def test_resume_needs_a_table(
        self, images: list[Path], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for more in ([], ["-o", "-"]):
            assert main(["predict", str(detector_file), "photos", "--resume", *more]) == 1
            assert "--resume needs a table" in capsys.readouterr().err

    def test_a_page_alone(
        self, images: list[Path], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["predict", str(detector_file), "photos", "--page", "a.html"]
        assert main(command) == 0
        assert Path("a.html").read_text().count("<figure>") == 10
        assert main(command) == 1
        assert "a.html exists" in capsys.readouterr().err


def test_nothing_prints_the_help_with_examples(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)  # restores it
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "forensics predict outputs/NAME photo.jpg" in out
    for command in ("train", "predict", "prepare", "audit", "report", "export"):
        assert f"\n    {command} " in out
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert not end.value.code
        text = capsys.readouterr().out
        assert f"forensics {command} " in text
        assert max(map(len, text.splitlines())) <= WIDTH
