"""`forensics predict` as a user meets it: any files in, one table out."""

from __future__ import annotations

import base64
import csv
import importlib.util
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import NETWORK, SIZE, detector_card, write_detector, write_images
from PIL import Image

from forensics.cli import main
from forensics.detectors.card import SpectrumGuard
from forensics.images.spectra import profiles
from forensics.model_files import save_model
from forensics.scoring import Predictor, Verdict, page, scorer
from forensics.scoring import predict as module
from forensics.scoring.gather import gather
from forensics.scoring.predictor import Scored

COLUMNS = [
    "path", "probability_real", "logit", "verdict", "reason", "width", "height", "format", "error",
    "copies",
]  # fmt: skip


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Ten images below ``photos``, named as seen from the working folder."""
    monkeypatch.chdir(tmp_path)
    return write_images(Path("photos"), 10)


def table(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestInputs:
    def test_folders_files_lists_and_standard_input_in_the_order_given(
        self, images: list[Path], detector_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        extra = write_images(Path("more"), 4, seed=1)
        Path("list.txt").write_text(f"{extra[1]}\r\n\n{extra[2]}")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{extra[3]}\n".encode())))
        given = [str(extra[0]), "photos", "-", "--list", "list.txt"]
        assert main(["predict", str(detector_file), *given, "-o", "a.csv"]) == 0
        rows = table("a.csv")
        assert list(rows[0]) == COLUMNS
        expected = [extra[0], *images, extra[3], extra[1], extra[2]]
        assert [row["path"] for row in rows] == [str(path) for path in expected]
        scored = Predictor.load(detector_file).predict(expected)
        for row, one in zip(rows, scored, strict=True):
            assert float(row["probability_real"]) == one.probability_real
            assert np.float32(row["logit"]) == one.logit
            assert row["verdict"] == one.verdict
            assert (row["width"], row["height"], row["format"]) == ("16", "16", "PNG")

    def test_copies_are_scored_where_needed_or_asked_for(
        self, images: list[Path], tmp_path: Path
    ) -> None:
        still = {"jpeg": 0.0, "rescale": 0.0}
        detector = str(write_detector(tmp_path / "a.safetensors", 0, largest_changes=still))
        for given, expected in (([], ""), (["--all-checks"], "jpeg rescale")):
            assert main(["predict", detector, "photos", "-o", "a.csv", "--overwrite", *given]) == 0
            assert {row["copies"] for row in table("a.csv")} == {expected}

    def test_odd_names_are_scored_and_come_back(
        self, images: list[Path], detector_file: Path
    ) -> None:
        names = [
            "a b.png", "a=b.png", "a,b.png", 'a"b.png', "a\nb.png", "*.png", "-x.png", "ü.png",
            "=1+1.png", "<b>.png", "$(touch x).png", "'; drop.png", "{a}.png", "%s.png",
        ]  # fmt: skip
        for name in names:
            (Path("photos") / name).write_bytes(images[0].read_bytes())
        raw = os.fsencode("photos/") + b"\xff.png"
        with open(raw, "wb") as file:
            file.write(images[0].read_bytes())
        for suffix, read in READERS.items():
            assert main(["predict", str(detector_file), "photos", "-o", f"a.{suffix}"]) == 0
            rows = read(f"a.{suffix}")
            assert {f"photos/{name}" for name in names} < {row["path"] for row in rows}
            assert sum("\\udcff" in row["path"] or "\\xff" in row["path"] for row in rows) == 1
            assert not any(row["error"] for row in rows)
        assert not Path("x").exists()

    def test_every_file_of_a_folder_has_a_row_whatever_its_name(
        self, images: list[Path], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content = images[0].read_bytes()
        as_images = ["a.jfif", "b.jpg_large", "c", "d.HEIC", "e.tmp"]
        others = {"f.heic": b"\0\0\0\x18ftypheic" + bytes(99), "g.txt": b"text", "h.mp4": b""}
        for name in as_images:
            Path("photos", name).write_bytes(content)
        for name, other in others.items():
            Path("photos", name).write_bytes(other)
        Path("photos/link.png").symlink_to(images[0].resolve())
        Path("photos/up").symlink_to("..")
        os.mkfifo("photos/pipe.png")
        for name in (".hidden.png", "._a.png", "Thumbs.db", "desktop.ini"):
            Path("photos", name).write_bytes(content)
        given = ["predict", str(detector_file), "photos", "photos/c", "-o", "a.csv"]
        assert main(given) == 0
        rows = {row["path"]: row for row in table("a.csv")}
        links = ["link.png", "up", "pipe.png"]
        names = [path.name for path in images] + [*as_images, *others, *links]
        assert list(rows) == sorted(f"photos/{name}" for name in names)
        for name in names:
            row = rows[f"photos/{name}"]
            assert bool(row["error"]) != bool(row["verdict"])
            assert bool(row["error"]) == (name in links or name in others), name
        assert all("a link" in rows[f"photos/{name}"]["error"] for name in links[:2])
        out = capsys.readouterr().out
        assert "22 files: " in out
        assert "6 unreadable" in out
        assert "4 files passed over: 3 macOS or Windows system files, 1 hidden file" in out

    def test_a_link_is_followed_if_it_is_named(
        self, images: list[Path], detector_file: Path
    ) -> None:
        Path("link.png").symlink_to(images[0])
        Path("folder").symlink_to("photos")
        given = ["predict", str(detector_file), "link.png", "folder", "-o", "a.csv"]
        assert main(given) == 0
        assert [bool(row["verdict"]) for row in table("a.csv")] == [True] * 11

    def test_the_home_folder_in_any_path(
        self, images: list[Path], detector_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(Path.cwd()))
        Path("list").write_text("photos/001.png")
        Path("~b.png").write_bytes(images[0].read_bytes())
        given = ["predict", str(detector_file), "~/photos/000.png", "~b.png", "--list=~/list"]
        assert main([*given, "-o", "~/a.csv"]) == 0
        assert [bool(row["verdict"]) for row in table("a.csv")] == [True] * 3
        assert not Path("~").exists()

    def test_a_name_longer_than_any_file_has_a_row(
        self, images: list[Path], detector_file: Path
    ) -> None:
        long = "photos/" + "a" * 300
        Path("list").write_text(f"{long}\n{'b/' * 3000}")
        given = ["predict", str(detector_file), long, "photos/000.png", "--list", "list"]
        assert main([*given, "-o", "a.csv"]) == 0
        rows = table("a.csv")
        assert [bool(row["error"]) for row in rows] == [True, False, True, True]

    @pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
    @pytest.mark.parametrize("marked", [True, False])
    def test_lists_in_any_usual_encoding(
        self,
        images: list[Path],
        separator: str,
        encoding: str,
        marked: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        names = ["photos/ü ä.png", "photos/000.png"]
        text = separator.join([*names, ""])
        content = text.encode(encoding)
        if encoding.startswith("utf-16") and marked:
            content = "\ufeff".encode(encoding) + content
        Path("list.txt").write_bytes(content)
        assert gather([], ["list.txt"]).paths == names
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert gather(["-"], []).paths == names

    def test_files_may_stand_on_both_sides_of_options_and_typos_do_not(
        self, images: list[Path], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        given = ["predict", str(detector_file), "-o", "a.csv", *map(str, images[:2])]
        assert main(given) == 0
        assert [row["path"] for row in table("a.csv")] == [str(path) for path in images[:2]]
        with pytest.raises(SystemExit, match="2"):
            main([*given, "--resumed"])
        assert "unrecognized arguments" in capsys.readouterr().err

    def test_nothing_named_is_said(
        self, images: list[Path], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("empty").mkdir()
        for given in ([], ["empty"]):
            assert main(["predict", str(detector_file), *given, "-o", "a.csv"]) == 1
            assert "nothing to score" in capsys.readouterr().err


def _jsonl(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def _parquet(path: str) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist())


READERS: dict[str, Callable[[str], list[dict[str, Any]]]] = {
    "csv": table,
    "jsonl": _jsonl,
    "parquet": _parquet,
}


class TestTable:
    def test_tables_of_all_formats_say_the_same(
        self, images: list[Path], detector_file: Path
    ) -> None:
        images[3].write_text("broken")
        said = {}
        for suffix, read in READERS.items():
            assert main(["predict", str(detector_file), "photos", "-o", f"a.{suffix}"]) == 0
            said[suffix] = [
                {k: "" if v is None else str(v) for k, v in row.items()}
                for row in read(f"a.{suffix}")
            ]
        assert said["csv"] == said["jsonl"] == said["parquet"]

    def test_another_suffix_is_refused_before_anything_is_scored(
        self, images: list[Path], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["predict", str(detector_file), "photos", "-o", "a.xlsx"]) == 1
        assert "a.xlsx must end in .csv, .jsonl, .parquet" in capsys.readouterr().err

    def test_a_summary_and_an_exit_code_that_fails_only_if_nothing_could_be_read(
        self, images: list[Path], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        broken = ["missing.png", "photos/000.png"]
        images[0].write_bytes(b"")
        assert main(["predict", str(detector_file), *broken, "-o", "a.csv"]) == 1
        out, err = capsys.readouterr()
        assert "2 files: 0 real, 0 generated, 0 unsure, 2 unreadable; a.csv" in out
        assert "None of the files could be read" in err
        assert len(table("a.csv")) == 2
        more = ["photos/001.png", "-o", "a.csv", "--overwrite"]
        assert main(["predict", str(detector_file), *broken, *more]) == 0
        assert "3 files: " in capsys.readouterr().out


def stopped_by(how: signal.Signals, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command that is sent a signal when it has scored seven images."""
    stream = Predictor.stream_with_squares

    def stopping(self: Predictor, pictures: Any) -> Iterator[Scored]:  # noqa: ANN401
        for number, one in enumerate(stream(self, pictures)):
            if number == 7:
                os.kill(os.getpid(), how)
            yield one

    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    # Where the tests run in the background, Ctrl-C would be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Predictor, "stream_with_squares", stopping)
            assert main(command) == 130
    finally:
        for one, action in handlers.items():
            signal.signal(one, action)


@pytest.mark.slow
class TestResume:
    @pytest.fixture(autouse=True)
    def _small_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scorer, "BATCH_SIZE", {"cpu": 2, "cuda": 2})
        monkeypatch.setattr(module, "PART_IMAGES", 4)

    @pytest.fixture
    def stopped(
        self, images: list[Path], detector_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> list[str]:
        """The command line of a run that was stopped in its second part."""
        command = ["predict", str(detector_file), "photos", "-o", "a.csv"]
        stopped_by(signal.SIGTERM, command, monkeypatch)
        assert not Path("a.csv").exists()
        return command

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_stopped_run_says_how_to_go_on(
        self, images: list[Path], detector_file: Path, how: signal.Signals,
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        stopped_by(how, ["predict", str(detector_file), "photos", "-o", "a.csv"], monkeypatch)
        said = "the scores so far are kept in a.csv.parts. Repeat the command with --resume."
        assert said in capsys.readouterr().err
        assert [path.name for path in Path("a.csv.parts").glob("*.parquet")] == ["000000.parquet"]

    def test_resumed_run_goes_on_after_the_last_whole_part_and_ends_as_if_never_stopped(
        self, stopped: list[str], images: list[Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*stopped[:-1], "complete.csv"]) == 0
        # Were it scored again, it would be another row.
        images[0].write_text("broken since")
        assert main([*stopped, "--resume"]) == 0
        assert Path("a.csv").read_bytes() == Path("complete.csv").read_bytes()
        assert not Path("a.csv.parts").exists()
        assert capsys.readouterr().out.count("10 files: ") == 2

    def test_without_resume_what_was_scored_is_not_thrown_away(
        self, stopped: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(stopped) == 1
        assert "add --resume" in capsys.readouterr().err

    def test_run_with_other_files_or_another_detector_does_not_go_on(
        self, stopped: list[str], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*stopped, "more.png", "--resume"]) == 1
        assert (
            "begun with other files, another detector or another --explain"
            in capsys.readouterr().err
        )

    def test_run_with_other_checks_does_not_go_on(
        self, stopped: list[str], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_detector(detector_file, 0, largest_changes={"jpeg": 0.0, "rescale": 0.0})
        assert main([*stopped, "--resume"]) == 1
        assert "--all-checks" in capsys.readouterr().err

    def test_resume_with_nothing_to_go_on_with_begins(
        self, images: list[Path], detector_file: Path
    ) -> None:
        command = ["predict", str(detector_file), "photos", "--resume", "-o", "a.csv"]
        assert main(command) == 0
        assert main(command) == 0
        assert len(table("a.csv")) == 10


@pytest.mark.slow
def test_scoring_imports_nothing_that_takes_long_and_that_it_does_without(
    images: list[Path], detector_file: Path
) -> None:
    program = (
        "import sys; from forensics.cli import main; code = main(); "
        "print(*sorted({name.partition('.')[0] for name in sys.modules})); sys.exit(code)"
    )
    given = ["predict", str(detector_file), "photos", "-o", "a.csv"]
    done = subprocess.run(
        [sys.executable, "-c", program, *given],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    imported = set(done.stdout.splitlines()[-1].split())
    assert {"torch", "pyarrow"} < imported
    slow = {"captum", "matplotlib", "pytorch_lightning", "scipy", "sklearn", "sympy", "torchvision"}
    assert not slow & imported


needs_captum = pytest.mark.skipif(
    importlib.util.find_spec("captum") is None, reason="needs the extra explain"
)
DRAWING = "forensics.scoring.predict.explanation"


class Drawn:
    """In the place of a figure, which takes long to draw."""

    def savefig(self, file: io.BytesIO, **_: object) -> None:
        file.write(b"drawn")


@pytest.mark.slow
@needs_captum
class TestExplain:
    @pytest.fixture(autouse=True)
    def _small_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scorer, "BATCH_SIZE", {"cpu": 2, "cuda": 2})
        monkeypatch.setattr(module, "PART_IMAGES", 4)

    def test_each_picture_that_was_read_has_an_explanation_by_its_row(
        self, images: list[Path], detector_file: Path
    ) -> None:
        odd = ["a b=c'\"<script>$x^2$.png", "ü.png", "-x.png", f"{'n' * 200}.png", ".png"]
        Path("odd").mkdir()
        for name in odd:
            Path("odd", name).write_bytes(images[0].read_bytes())
        raw = os.fsencode("odd/") + b"\xff.png"
        with open(raw, "wb") as file:
            file.write(images[0].read_bytes())
        paths = ["photos/000.png", "gone.png", *(f"odd/{name}" for name in odd), os.fsdecode(raw)]
        Path("list.txt").write_bytes(b"\n".join(map(os.fsencode, paths)))
        given = ["predict", str(detector_file), "--list", "list.txt", "--explain", "ex"]
        assert main([*given, "-o", "a.csv"]) == 0
        assert sorted(path.name for path in Path("ex").iterdir()) == [
            "000000_000.png",
            "000002_a_b_c___script__x_2_.png",
            "000003__.png",
            "000004_-x.png",
            f"000005_{'n' * 80}.png",
            "000006_.png.png",
            "000007__.png",
        ]
        for path in Path("ex").iterdir():
            with Image.open(path) as image:
                assert image.width > 800

    def test_explanation_is_drawn_of_what_was_scored_towards_the_verdict(
        self, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[tuple[Any, ...]] = []

        def draw(*given: Any) -> Any:  # noqa: ANN401
            drawn.append(given)
            return Drawn()

        monkeypatch.setattr(DRAWING, draw)
        network = NETWORK.build(SIZE, pretrained=False)
        for threshold, towards, sign in ((-99.0, "real", 1), (99.0, "generated", -1)):
            drawn.clear()
            at = {"0.5": 0.0, "source_0.05": threshold, "source_0.01": threshold}
            detector = Predictor(network, detector_card(thresholds=at), "0")
            folder = tmp_path / towards
            module.predict(
                detector, [str(images[1])], folder / "a.csv", resume=False, explain=folder / "ex"
            )
            ((square, evidence, said, profile, spectra, title),) = drawn
            pixels = np.asarray(Image.open(images[1]))
            assert np.array_equal(square, pixels)
            assert np.allclose(evidence, sign * detector.evidence(pixels))
            assert said == towards
            assert towards in title
            assert np.allclose(profile, profiles(pixels[None])[0])
            assert detector.card.guard is not None
            assert spectra == detector.card.guard.spectra
            assert (folder / "ex" / "000000_001.png").read_bytes() == b"drawn"

    def test_no_explanation_of_a_resumed_run_is_missing_or_there_twice(
        self, images: list[Path], detector_file: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        monkeypatch.setattr(DRAWING, lambda *given: Drawn())
        command = ["predict", str(detector_file), "photos", "-o", "a.csv", "--explain", "ex"]
        stopped_by(signal.SIGTERM, command, monkeypatch)
        begun = {path.name: path.stat().st_mtime_ns for path in Path("ex").iterdir()}
        assert 4 <= len(begun) < 10
        (Path("ex") / ".000008_008.png.1.unfinished").touch()  # as a kill -9 leaves
        for other in (command[:-2], [*command[:-1], "elsewhere"]):
            assert main([*other, "--resume"]) == 1
            assert "another --explain" in capsys.readouterr().err
        assert main([*command, "--resume"]) == 0
        names = [f"{n:06d}_{path.stem}.png" for n, path in enumerate(images)]
        assert sorted(path.name for path in Path("ex").iterdir()) == names
        for name in names[:4]:  # of the part that was complete
            assert (Path("ex") / name).stat().st_mtime_ns == begun[name]

    def test_folder_for_explanations_with_anything_in_it_is_left_alone(
        self, images: list[Path], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["predict", str(detector_file), "photos/000.png", "--explain", "ex", "-o"]
        assert main([*command, "a.csv"]) == 0
        before = Path("ex/000000_000.png").read_bytes()
        for again in (["b.csv"], ["a.csv", "--resume"]):
            assert main([*command, *again]) == 1
            assert "ex is not empty" in capsys.readouterr().err
        assert Path("ex/000000_000.png").read_bytes() == before
        assert not Path("b.csv.parts").exists()


def test_what_a_kill_left_of_the_outputs_is_removed_and_nothing_else(
    images: list[Path], detector_file: Path
) -> None:
    command = ["predict", str(detector_file), "photos", "-o", "a[1].csv", "--page", "a.html"]
    left = [Path(".a[1].csv.4711.unfinished"), Path(".a.html.4711.unfinished")]
    others = [Path(".a1.csv.4711.unfinished"), Path(".b.csv.4711.unfinished")]
    for path in (*left, *others):
        path.touch()
    assert main(command) == 0
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


def test_without_captum_explanations_are_refused_at_once(
    images: list[Path], detector_file: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("forensics.scoring.explanation.find_spec", lambda name: None)
    command = ["predict", str(detector_file), "photos", "-o", "a.csv"]
    assert main([*command, "--explain", "ex"]) == 1
    said = "--explain needs captum: pip install -c constraints.txt '.[explain]'."
    assert said in capsys.readouterr().err
    assert main(command) == 0


class Shown(HTMLParser):
    """What a page shows under each heading, and all it would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: dict[str, list[str]] = defaultdict(list)
        self.tags: set[str] = set()
        self._group, self._in_name = "", False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        self._group = (dict(attrs)["id"] or "") if tag == "h2" else self._group
        self._in_name = tag == "bdi"

    def handle_data(self, data: str) -> None:
        if self._in_name:
            self.names[self._group].append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_name = False


class TestPage:
    @pytest.fixture
    def undecided(self, images: list[Path], detector_file: Path) -> Path:
        """A detector whose threshold lies in the middle of the scores of the images."""
        predictor = Predictor.load(detector_file)
        logits = [one.logit for one in predictor.predict(images)]
        middle = float(np.median(np.array(logits, np.float64)))
        at = {"0.5": 0.0, "source_0.05": middle, "source_0.01": middle - 1e-6}
        assert predictor.card.guard is not None
        guard = SpectrumGuard(predictor.card.guard.spectra, 1e9)
        card = detector_card(thresholds=at, guard=guard, toy=True)
        save_model(detector_file, predictor.scorer.detector, card.to_file())
        return detector_file

    def page(self, detector: Path, *more: str) -> Shown:
        command = ["predict", str(detector), "photos", *more, "-o", "a.csv", "--page", "a.html"]
        assert main([*command, "--overwrite"]) == 0
        return Shown(Path("a.html").read_text())

    def test_pictures_stand_by_verdict_least_real_first(self, undecided: Path) -> None:
        for name in ("<script>alert(1)<b>.png", "a b=c&quot;.png", "'\" onerror='x.png"):
            _image().save(Path("photos", name))
        _image(4).save("photos/tiny.png")
        Path("photos/broken&.png").write_text("no image")
        shown = self.page(undecided, "gone.png")
        rows = table("a.csv")
        expected: dict[str, list[str]] = {}
        for verdict in Verdict:
            of_verdict = [row for row in rows if row["verdict"] == verdict]
            of_verdict.sort(key=lambda row: float(row["logit"]))
            expected[verdict] = [row["path"] for row in of_verdict]
        expected["unreadable"] = ["photos/broken&.png", "gone.png"]  # no common folder
        assert shown.names == {name: paths for name, paths in expected.items() if paths}
        assert len(expected["unsure"]) >= 1
        text = Path("a.html").read_text()
        for name, paths in expected.items():
            assert f"<strong>{len(paths)}</strong>{name}" in text
        assert "neither JPEG, PNG nor WebP" in text
        assert "no such file" in text
        assert f"smaller than the {SIZE} pixels" in text
        assert "toy faces" in text

    def test_page_needs_nothing_from_outside_and_runs_nothing(self, undecided: Path) -> None:
        _image().save("photos/<script src=http:x>.png")
        shown = self.page(undecided)
        assert "script" not in shown.tags
        assert {"img", "figure"} < shown.tags
        for link in shown.links:
            assert link.startswith(("data:image/webp;base64,", "#"))
        text = Path("a.html").read_text()
        rest = re.sub(r"data:image/webp;base64,[^\"]*", "", text).replace("src=http:x", "")
        assert "http" not in rest
        assert "url(" not in rest
        assert "@import" not in rest

    def test_what_all_paths_begin_with_is_said_once(self, undecided: Path) -> None:
        shown = self.page(undecided)
        names = sorted(name for of_group in shown.names.values() for name in of_group)
        assert names == [f"{number:03d}.png" for number in range(10)]
        assert Path("a.html").read_text().count("photos/") == 1 + 10  # and each full name, hidden

    @needs_captum
    def test_each_image_leads_to_its_explanation(
        self, undecided: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(DRAWING, lambda *given: Drawn())
        Path("photos/broken.png").write_text("no image")
        Path("pages").mkdir()
        command = ["predict", str(undecided), "photos", "--explain", "w y#?", "-o", "a.csv"]
        assert main([*command, "--page", "pages/a.html"]) == 0
        links = [one for one in Shown(Path("pages/a.html").read_text()).links if one[0] == "."]
        assert sorted(links) == [f"./../w%20y%23%3F/{n:06d}_{n:03d}.png" for n in range(10)]
        for link in links:
            assert (Path("pages") / unquote(link)).read_bytes() == b"drawn"

    def test_a_probability_contrary_to_its_verdict_has_the_limit_beside_it(
        self, undecided: Path
    ) -> None:
        predictor = Predictor.load(undecided)
        at = {"0.5": 0.0, "source_0.05": 99.0, "source_0.01": 98.0}  # all are generated
        assert predictor.card.guard is not None
        card = detector_card(thresholds=at, guard=predictor.card.guard)
        save_model(undecided, predictor.scorer.detector, card.to_file())
        self.page(undecided)
        contrary = [row for row in table("a.csv") if float(row["probability_real"]) >= 0.5]
        assert contrary
        assert all(row["verdict"] == "generated" for row in contrary)
        assert Path("a.html").read_text().count(">below 1.000<") == len(contrary)

    def test_thumbnails_are_of_the_middle_square(self, undecided: Path) -> None:
        picture = Image.new("RGB", (300, 100), "red")
        picture.paste("blue", (100, 0, 200, 100))
        picture.save("blue.png")
        command = ["predict", str(undecided), "blue.png", "-o", "b.csv", "--page", "b.html"]
        assert main(command) == 0
        (link,) = (one for one in Shown(Path("b.html").read_text()).links if one[0] != "#")
        with Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2]))) as thumbnail:
            assert thumbnail.size == (page.THUMBNAIL_SIZE,) * 2
            assert np.abs(np.asarray(thumbnail.convert("RGB")) - [0, 0, 255]).max() < 8

    def test_of_many_the_first_are_shown_and_that_is_said(
        self, undecided: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = self.page(undecided).names
        monkeypatch.setattr(page, "SHOWN", 1)
        few = self.page(undecided).names
        assert few == {name: paths[:1] for name, paths in whole.items()}
        assert "The first 1 of them are shown here; the table has all." in (
            Path("a.html").read_text()
        )

    def test_page_is_whole_after_a_resume_and_says_what_changed_since(
        self, undecided: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scorer, "BATCH_SIZE", {"cpu": 2, "cuda": 2})
        monkeypatch.setattr(module, "PART_IMAGES", 4)
        command = ["predict", str(undecided), "photos", "-o", "a.csv", "--page", "a.html"]
        stopped_by(signal.SIGTERM, command, monkeypatch)
        assert not Path("a.html").exists()
        Path("photos/001.png").unlink()
        Path("photos/001.png").symlink_to("nowhere")
        # Named, since the folder would now leave it out.
        named = [f"photos/{number:03d}.png" for number in range(10)]
        assert main(["predict", str(undecided), *named, "-o", "a.csv", "--page", "a.html",
                     "--resume"]) == 0  # fmt: skip
        text = Path("a.html").read_text()
        assert sum(map(len, Shown(text).names.values())) == 10
        assert text.count("no longer readable") == 1

    def test_an_uncalibrated_detector_has_scores_where_others_have_probabilities(
        self, undecided: Path
    ) -> None:
        card = Predictor.load(undecided).card
        card.calibration.offset = card.calibration.temperature = None
        network = Predictor.load(undecided).scorer.detector
        save_model(undecided, network, card.to_file())
        shown = self.page(undecided)
        rows = table("a.csv")
        assert [row["probability_real"] for row in rows] == [""] * 10
        assert all(row["logit"] and row["verdict"] for row in rows)
        assert sum(map(len, shown.names.values())) == 10
        text = Path("a.html").read_text()
        middle = card.calibration.thresholds["source_0.05"]
        assert f"An image is called generated if its score is below {middle:.3f}" in text

    def test_table_and_page_are_two_files(
        self, images: list[Path], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["predict", str(detector_file), "photos", "-o", "a.csv", "--page", "./a.csv"]
        assert main(command) == 1
        assert "give --page another name" in capsys.readouterr().err


def _image(size: int = 40) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    return Image.fromarray(pixels)


def _encoded(format_: str, image: Image.Image | None = None, **options: Any) -> bytes:  # noqa: ANN401
    buffer = io.BytesIO()
    (image or _image()).save(buffer, format_, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def _header(width: int, height: int) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", b"") + _chunk(b"IEND", b"")


def _flipped(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 0x10
    return bytes(changed)


PNG, JPEG, WEBP = _encoded("png"), _encoded("jpeg"), _encoded("webp", lossless=True)
BOMB = PNG[:33] + _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 9)) + PNG[33:]
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "neither JPEG, PNG nor WebP"),
    "text": (b"hello", "neither JPEG, PNG nor WebP"),
    "html": (b"<!doctype html><img src=x>", "neither JPEG, PNG nor WebP"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "neither JPEG, PNG nor WebP"),
    "gif": (_encoded("gif"), "neither JPEG, PNG nor WebP"),
    "tiff": (_encoded("tiff"), "neither JPEG, PNG nor WebP"),
    "bmp": (_encoded("bmp"), "neither JPEG, PNG nor WebP"),
    "eps": (_encoded("eps"), "neither JPEG, PNG nor WebP"),
    "pdf": (_encoded("pdf"), "neither JPEG, PNG nor WebP"),
    "zip": (b"PK\x03\x04" + bytes(40), "neither JPEG, PNG nor WebP"),
    "nothing but zeros": (bytes(4096), "neither JPEG, PNG nor WebP"),
    "only the JPEG mark": (JPEG[:3], ""),
    "JPEG cut in half": (JPEG[: len(JPEG) // 2], ""),
    "only the PNG mark": (PNG[:8], ""),
    "PNG cut in half": (PNG[: len(PNG) // 2], ""),
    "PNG with a flipped bit": (_flipped(PNG, len(PNG) // 2), ""),
    "PNG with a flipped header": (_flipped(PNG, 18), ""),
    "PNG of 400 megapixels": (_header(20_000, 20_000), "more than the"),
    "PNG of 257 megapixels": (_header(16_000, 16_063), "more than the"),
    "PNG of no width": (_header(0, 10), ""),
    "PNG of 4 billion pixels a side": (_header(2**32 - 1, 2**32 - 1), ""),
    "WebP cut in half": (WEBP[: len(WEBP) // 2], ""),
    "only the WebP mark": (WEBP[:12], ""),
    "animated PNG": (
        _encoded("png", save_all=True, append_images=[_image(40).rotate(90)]), "animation",
    ),
    "animated WebP": (
        _encoded("webp", save_all=True, append_images=[_image(40).rotate(90)]), "animation",
    ),
}  # fmt: skip


class TestOutputs:
    @pytest.mark.parametrize("option", ["-o", "--page"])
    def test_a_folder_or_an_existing_file_is_refused_before_anything_is_scored(
        self,
        images: list[Path],
        detector_file: Path,
        option: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        command = ["predict", str(detector_file), "photos", "-o", "a.csv", option, "out.csv"]
        with monkeypatch.context() as patched:
            patched.setattr(Predictor, "stream_with_squares", None)
            Path("out.csv").mkdir()
            assert main([*command, "--overwrite"]) == 1
            assert "out.csv is a folder" in capsys.readouterr().err
            Path("out.csv").rmdir()
            Path("out.csv").write_text("precious")
            assert main(command) == 1
            said = capsys.readouterr().err
        assert all(part in said for part in ("out.csv exists", "--overwrite", "--resume"))
        assert Path("out.csv").read_text() == "precious"
        assert not list(Path().glob("*.parts"))
        assert main([*command, "--overwrite"]) == 0
        assert Path("out.csv").stat().st_size > 100

    @pytest.mark.parametrize("output", ["list.csv", "photos/000.csv"])
    def test_an_input_is_never_replaced(
        self,
        images: list[Path],
        detector_file: Path,
        output: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        images[0].rename("photos/000.csv")
        Path("list.csv").write_text("photos/001.png")
        before = Path(output).read_bytes()
        for option in ("--overwrite", "--resume"):
            command = ["predict", str(detector_file), "photos", "--list", "list.csv", option]
            assert main([*command, "-o", f"photos/../{output}"]) == 1
            assert "is an input" in capsys.readouterr().err
        Path("link").symlink_to(Path(output).parent.resolve())
        assert main([*command, "-o", f"link/{Path(output).name}"]) == 1
        assert "is an input" in capsys.readouterr().err
        assert Path(output).read_bytes() == before

    @pytest.mark.parametrize(
        "name",
        ["=1+1.png", "+a.png", "-b.png", "@c.png", "\td.png", "'e", " =f", "\u3000\uff1dg",
         "\uff0bh", "\uff0di", "\uff20j"],
    )  # fmt: skip
    def test_no_cell_of_a_csv_is_a_formula(
        self, images: list[Path], detector_file: Path, name: str
    ) -> None:
        Path(name).write_bytes(images[0].read_bytes())
        Path("list").write_text(name)
        for suffix, read in READERS.items():
            command = ["predict", str(detector_file), "--list", "list", "-o", f"a.{suffix}"]
            assert main(command) == 0
            (row,) = read(f"a.{suffix}")
            assert row["path"] == (f"'{name}" if suffix == "csv" else name)
            assert float(row["logit"]) is not None  # numbers keep their sign

    def test_a_folder_whose_name_is_no_text(
        self, images: list[Path], detector_file: Path, tmp_path: Path
    ) -> None:
        folder = Path(os.fsdecode(b"caf\xe9"))
        folder.mkdir()
        for suffix, read in READERS.items():
            command = ["predict", str(detector_file), "photos", "-o", str(folder / f"a.{suffix}")]
            assert main([*command, "--page", str(folder / "a.html"), "--overwrite"]) == 0
            if suffix != "parquet":
                assert len(read(str(folder / f"a.{suffix}"))) == 10
        assert len(list(folder.iterdir())) == 4


class TestDetector:
    def test_what_is_no_detector_is_said(
        self, images: list[Path], detector_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = Path("outputs/one")
        run.mkdir(parents=True)
        Path("outputs/one/detector.safetensors").write_bytes(detector_file.read_bytes())
        Path("last.ckpt").write_bytes(b"PK")
        for given, said in (
            ("outputs", "outputs has no detector.safetensors: name one of the 1 runs in it, "
             "such as outputs/one"),
            ("photos", "photos has no detector.safetensors"),
            ("last.ckpt", "last.ckpt is a checkpoint"),
            ("nowhere", "nowhere cannot be read"),
        ):  # fmt: skip
            assert main(["predict", given, "photos", "-o", "a.csv"]) == 1
            assert said in capsys.readouterr().err
        assert main(["predict", str(run), "photos", "-o", "a.csv"]) == 0


class TestBadInputs:
    def test_each_bad_file_is_a_row_with_its_error_and_the_rest_is_scored(
        self, images: list[Path], detector_file: Path
    ) -> None:
        Path("bad").mkdir()
        for number, (content, _) in enumerate(BAD.values()):
            Path(f"bad/{number:02d}.png").write_bytes(content)
        os.mkfifo("pipe.png")
        write_images(Path("tiny"), 1, size=1)
        others = ["pipe.png", "photos/no.png", "bad/00.png/x.png", "/dev/null", "tiny/000.png"]
        given = ["photos", "bad", *others]
        assert main(["predict", str(detector_file), *given, "-o", "a.csv"]) == 0
        rows = table("a.csv")
        assert all(row["error"] == "" and row["verdict"] for row in rows[:10])
        for (name, (_, said)), row in zip(BAD.items(), rows[10:], strict=False):
            assert row["error"], name
            assert said in row["error"], name
            assert "\n" not in row["error"]
            assert row["verdict"] == row["probability_real"] == ""
        *unread, tiny = rows[10 + len(BAD) :]
        assert len(unread) == 4
        assert all(row["error"] for row in unread)
        assert tiny["verdict"] == "unsure"
        assert f"smaller than the {SIZE} pixels" in tiny["reason"]

    def test_whole_pixels_are_scored_whatever_the_metadata_and_the_end(
        self, images: list[Path], detector_file: Path
    ) -> None:
        Path("odd").mkdir()
        for number, content in enumerate((PNG, BOMB, JPEG, JPEG[:-2], JPEG[:-2] + bytes(99))):
            Path(f"odd/{number}.png").write_bytes(content)
        assert main(["predict", str(detector_file), "odd", "-o", "a.csv"]) == 0
        png, bomb, whole, endless, damaged = table("a.csv")
        assert bomb["logit"] == png["logit"]
        assert endless["logit"] == damaged["logit"] == whole["logit"] != ""
        assert "damaged" not in endless["reason"]
        assert damaged["verdict"] == "unsure"
        assert "damaged: " in damaged["reason"]

    def test_mutated_files_neither_crash_nor_hang(
        self, images: list[Path], detector_file: Path
    ) -> None:
        generator = np.random.default_rng(0)
        Path("fuzz").mkdir()
        for number in range(300):
            content = bytearray((PNG, JPEG, WEBP)[number % 3])
            for position in generator.integers(0, len(content), generator.integers(1, 20)):
                content[position] = generator.integers(0, 256)
            if generator.random() < 0.2:
                content = content[: generator.integers(0, len(content))]
            Path(f"fuzz/{number:03d}.png").write_bytes(content)
        assert main(["predict", str(detector_file), "fuzz", "photos", "-o", "a.csv"]) == 0
        rows = table("a.csv")
        assert len(rows) == 310
        assert all(bool(row["error"]) != bool(row["verdict"]) for row in rows)
        assert 0 < sum(bool(row["error"]) for row in rows) < 310
