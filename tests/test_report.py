"""Reports of run folders: what they say, what they refuse, and the page."""

import csv
import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from forensics import files, runs
from forensics.cli import main
from forensics.errors import UserError
from forensics.evaluation.metrics import at_threshold, ranking
from forensics.reports.report import write_report
from forensics.reports.study import read_study
from forensics.runs import SWEEP

GOLDEN = Path(__file__).parent / "golden"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
TRY = """<script>addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument, found = {sorted: []};
  found.width = page.documentElement.scrollWidth;
  const table = page.querySelectorAll("table")[1], scroll = table.parentElement;
  scroll.scrollLeft = 150;
  const left = element => element.getBoundingClientRect().left;
  found.stuck = left(table.tBodies[0].rows[0].cells[0]) - left(scroll);
  for (const _ of [0, 1]) {
    table.querySelectorAll("th button")[2].click();
    found.sorted.push({
      sort: [1, 2].map(column => table.querySelectorAll("th")[column].ariaSort),
      values: [...table.tBodies[0].rows].map(row => parseFloat(row.cells[2].textContent)),
    });
  }
  const output = document.createElement("output");
  output.textContent = JSON.stringify(found);
  document.body.append(output);
})</script>"""
"""Tries the page in a frame."""

THRESHOLDS = {"0.5": 0.0, "source_0.05": -1.0}
PERTURBATIONS = {("jpeg", 90.0): 0.2, ("jpeg", 50.0): 0.8}


def logits_of(source: str, preprocess: str, seed: int, train_on: tuple[str, ...]) -> np.ndarray:
    """Made up, but such that blur helps on what was not seen."""
    draws = np.random.default_rng([len(source), len(preprocess), seed])
    if source == "real":
        middle = 2.0
    elif source in train_on:
        middle = -2.0
    else:
        middle = 1.0 if preprocess == "none" else 0.0
    return (middle + draws.normal(0, 1, 20)).astype(np.float32)


def write_run(
    folder: Path, preprocess: str = "none", seed: int = 0,
    train_on: tuple[str, ...] = ("pggan",), *, illustrated: bool = False,
    **changes: Any,  # noqa: ANN401
) -> Path:  # fmt: skip
    """A run folder such as ``train.py`` leaves, of three generators with 20 images each.

    Illustrated, it has all that figures are drawn of, which takes most of a report's time.
    """
    (folder / ".hydra").mkdir(parents=True)
    sources = ["real", "pggan", "wgan_gp", "dcgan"]
    logits = {s: logits_of(s, preprocess, seed, train_on) for s in sources}

    def columns(shift: float = 0.0) -> dict[str, list[Any]]:
        return {
            "source": [s for s in sources for _ in range(20)],
            "path": [f"{number:03d}.png" for _ in sources for number in range(20)],
            "label": [int(s == "real") for s in sources for _ in range(20)],
            "logit": [float(x) - (shift if s == "real" else 0) for s in sources for x in logits[s]],
        }

    files.write_columns(folder / runs.SCORES, columns() | {"split": ["test"] * 80})
    if illustrated:
        under: dict[str, list[Any]] = {}
        for (name, strength), shift in PERTURBATIONS.items():
            more = columns(shift) | {"perturbation": [name] * 80, "strength": [strength] * 80}
            under = {key: under.get(key, []) + values for key, values in more.items()}
        files.write_columns(folder / runs.PERTURBED, under)
        features = [list(np.random.default_rng(n).normal(size=5)) for n in range(80)]
        of = {key: values for key, values in columns().items() if key in ("source", "path")}
        files.write_columns(folder / runs.FEATURES, of | {"features": features})
        for source in sources:
            pixels = np.random.default_rng(0).integers(0, 256, (16, 128, 3), np.uint8)
            files.write_image(folder / runs.MISTAKES / f"{source}.png", pixels)
    pairs = [
        {
            "real": "real", "generator": s, "seen": s in train_on,
            "n_real": 20, "n_generated": 20,
            "ranking": ranking(logits["real"], logits[s], 0, 50),
        }
        | {f"at_{k}": at_threshold(logits["real"], logits[s], v) for k, v in THRESHOLDS.items()}
        for s in sources[1:]
    ]  # fmt: skip
    settings = {
        "seed": seed, "preprocess": {}, "max_epochs": 5, "batch_size": 64, "name": folder.name,
        "dataset": {"real": ["real"], "generators": sources[1:], "train_on": list(train_on)},
        "perturb": ["jpeg"],
    }  # fmt: skip
    result = {
        "toy": False, "model": "dcgan_discriminator", "preprocess": preprocess,
        "settings": settings, "epoch": 4, "thresholds": THRESHOLDS,
        "temperature": 1.0, "sources": [], "pairs": pairs,
        "test_hashes": {source: f"hash of {source}" for source in sources},
        "images": {"train": {"real": 50, **dict.fromkeys(train_on, 50)},
                   "test": dict.fromkeys(sources, 20)},
        "warnings": ["real has 70 images."], "seconds": {"fit": 60.0}, "git_commit": "abc",
        "git_changed": False, "versions": {"torch": "2"}, "device": "a machine", "threads": 1,
    }  # fmt: skip
    files.write_json(folder / runs.RESULT, result | changes)
    return folder


def write_study(folder: Path, *, illustrated: bool) -> Path:
    """Two preprocesses by two seeds."""
    for preprocess in ("none", "blur"):
        for seed in (0, 1):
            run = folder / f"{preprocess}_{seed}"
            write_run(run, preprocess, seed, illustrated=illustrated)
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Tables alone are made of it."""
    return write_study(tmp_path / "study", illustrated=False)


@pytest.fixture
def illustrated(tmp_path: Path) -> Path:
    """The same study, with what figures are drawn of."""
    return write_study(tmp_path / "illustrated", illustrated=True)


@pytest.fixture
def change(study: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Change the result of one run of the study."""

    def change(how: Callable[[dict[str, Any]], object]) -> Path:
        path = study / "none_1" / runs.RESULT
        result = json.loads(path.read_text())
        how(result)
        path.write_text(json.dumps(result))
        return study

    return change


class TestGolden:
    def test_a_fixed_study_gives_these_files(
        self, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        write_report([study], tmp_path / "to")
        for name in ("report.md", "cells.csv", "differences.csv"):
            assert (tmp_path / "to" / name).read_text() == (GOLDEN / name).read_text(), name


@pytest.mark.slow
class TestContents:
    def test_cells_are_the_means_of_what_the_runs_measured(
        self, study: Path, tmp_path: Path
    ) -> None:
        write_report([study], tmp_path / "to")
        results = [
            json.loads((study / f"blur_{seed}" / runs.RESULT).read_text()) for seed in (0, 1)
        ]
        for row in rows_of(tmp_path / "to", "cells"):
            if row["variant"] != "blur" or row["metric"] == "auroc":
                continue
            of = [
                pair[f"at_{row['threshold']}"][row["metric"]]
                for result in results
                for pair in result["pairs"]
                if pair["generator"] == row["generator"]
            ]
            assert float(row["mean"]) == pytest.approx(np.mean(of), abs=1e-5)

    def test_the_grid_marks_what_was_seen_and_finds_the_worst(self, tmp_path: Path) -> None:
        study = tmp_path / "grid"
        for train_on in (("pggan",), ("dcgan",), ("pggan", "wgan_gp")):
            run = study / "+".join(train_on)
            write_run(run, train_on=train_on, illustrated=train_on == ("pggan",))
        write_report([study], study)
        table = (
            (study / "report.md").read_text().partition("ACC (threshold 0.5, the paper's), real")[2]
        )
        row = next(line for line in table.splitlines() if "| pggan+wgan_gp |" in line)
        cells = [cell.strip() for cell in row.strip("| ").split("|")]
        assert [" *" in cell for cell in cells[3:6]] == [True, True, False]
        # One generator is left out, so it is the mean and the worst of those not seen.
        left = cells[5]
        assert cells[6:] == [left, f"{left} (dcgan)", left]
        for suffix in ("png", "svg"):
            assert (study / f"grid_acc_real.{suffix}").stat().st_size > 1000
            assert (study / f"robustness_jpeg_pggan.{suffix}").stat().st_size > 1000

    def test_the_papers_figures_stand_beside_ours(self, study: Path) -> None:
        write_report([study], study)
        lines = [
            line
            for line in (study / "report.md").read_text().splitlines()
            if "real + dcgan (unseen)" in line
        ]
        assert "| 60.5 | 95.1 | 26.0 |" in lines[0]
        assert "| 64.0 | 93.1 | 35.0 |" in lines[1]

    @pytest.mark.usefixtures("undrawn")
    def test_it_can_be_made_again_in_the_same_place(self, tmp_path: Path) -> None:
        study = tmp_path / "study"
        write_run(study / "a", illustrated=True)
        write_report([study], study)
        first = (study / "cells.csv").read_bytes()
        write_report([study], study)
        assert (study / "cells.csv").read_bytes() == first


class Links(HTMLParser):
    """Everything a page would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]


class TestPage:
    def test_it_needs_nothing_from_outside(self, tmp_path: Path) -> None:
        study = tmp_path / "study"
        write_run(study / "a", illustrated=True)
        write_report([study], study)
        page = (study / "report.html").read_text()
        links = Links(page).found
        assert links
        assert all(re.match(r"data:image/(png|webp);base64,|#\d+$|a/$", link) for link in links)
        assert "http" not in re.sub(r"data:image/\w+;base64,[^\"]*", "", page)
        assert "@import" not in page

    def test_it_opens_with_the_finding_and_has_a_row_for_each_pair(self, illustrated: Path) -> None:
        write_report([illustrated], illustrated)
        page = (illustrated / "report.html").read_text()
        titles = re.findall(r"<h2[^>]*>([^<]*)", page)
        assert titles[:3] == ["Finding", "Question", "Test pairs"]
        # The sentence and the figure come before any table.
        assert page.index('class="lead"') < page.index("<img") < page.index("<table")
        first = page[page.index("Test pairs</h2>") :]
        first = first[: first.index("</table>")]
        pairs = re.findall(r'<tr><td class="name">([^<]*)', first)
        assert sorted(pairs) == sorted(2 * [f"real + {name}" for name in (
            "pggan (seen)", "wgan_gp (unseen)", "dcgan (unseen)")])  # fmt: skip

    def test_errors_have_their_names_and_scores(self, tmp_path: Path) -> None:
        study = tmp_path / "study"
        write_run(study / "a", illustrated=True)
        write_report([study], study)
        captions = re.findall(
            r"<figcaption>([^<]*)</figcaption>", (study / "report.html").read_text()
        )
        assert len(captions) == 4 * 8
        logits = logits_of("dcgan", "none", 0, ("pggan",)).astype(float)
        worst = int(logits.argmax())
        score = 1 / (1 + np.exp(-logits[worst]))
        assert captions[3 * 8] == f"{worst:03d}.png\nreal: {score:.1%}\nwrong"

    def test_only_folders_below_the_report_are_linked(self, study: Path, tmp_path: Path) -> None:
        strange = 'javascript:alert(1)"&<b>'
        write_run(study / strange, "noise")
        write_report([study], study)
        links = Links((study / "report.html").read_text()).found
        folders = [link for link in links if link.endswith("/")]
        assert "none_0/" in folders
        assert "javascript%3Aalert%281%29%22%26%3Cb%3E/" in folders
        write_report([study], tmp_path / "to")
        links = Links((tmp_path / "to" / "report.html").read_text()).found
        assert not any(link.endswith("/") for link in links)

    def test_damaged_curves_are_refused(self, study: Path) -> None:
        (study / "none_0" / runs.EPOCHS).write_text("epoch,val/loss\nfirst,low\n")
        with pytest.raises(UserError) as refused:
            write_report([study], study)
        assert refused.value.key == str(study / "none_0" / runs.EPOCHS)

    @pytest.mark.slow
    @pytest.mark.skipif(not BROWSER, reason="no Chromium")
    def test_in_a_browser_it_sorts_and_fits_a_narrow_screen(
        self, study: Path, tmp_path: Path
    ) -> None:
        write_report([study], study)
        page = html.escape((study / "report.html").read_text())
        frame = tmp_path / "frame.html"
        frame.write_text(f"<iframe style='width:400px;height:800px' srcdoc='{page}'></iframe>{TRY}")
        command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
                   f"--user-data-dir={tmp_path / 'profile'}", frame.as_uri()]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        found = json.loads(html.unescape(re.findall("<output>(.*)</output>", done.stdout)[0]))
        assert found["width"] <= 400
        assert found["stuck"] == 0
        up, down = found["sorted"]
        assert (up["sort"], down["sort"]) == ([None, "ascending"], [None, "descending"])
        assert up["values"] == sorted(up["values"])
        assert down["values"] == sorted(up["values"], reverse=True)

    def test_names_are_shown_and_not_run(self, study: Path) -> None:
        record = {
            "command": "python train.py <script>alert(1)</script>",
            "jobs": [{"folder": "gone", "overrides": ["<b>"]}],
        }
        (study / SWEEP).write_text(json.dumps(record))
        write_report([study], study)
        page = (study / "report.html").read_text()
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)" in page


class TestMissing:
    def test_jobs_without_a_result_are_named_first(
        self, study: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folders = [f"{p}_{s}" for p in ("none", "blur", "noise") for s in (0, 1)]
        record = {"command": "x", "jobs": [{"folder": f, "overrides": [f]} for f in folders]}
        (study / SWEEP).write_text(json.dumps(record))
        (study / "noise_0").mkdir()
        files.write_json(study / "noise_0" / runs.FAILED, {"error": "out of memory"})
        shutil.rmtree(study / "blur_1")

        assert main(["report", str(study)]) == 1
        assert "3 jobs have no result" in capsys.readouterr().err
        first = (study / "report.md").read_text().splitlines()[:6]
        assert first[0] == "**3 of 6 jobs have no result:**"
        assert "noise_0: failed: out of memory" in "".join(first)
        assert "noise_1: was never begun" in "".join(first)
        page = (study / "report.html").read_text()
        assert "3 of 6 jobs have no result" in page
        # The cell over fewer seeds says so.
        assert "(without seed 1)" in page
        row = next(
            line
            for line in (study / "differences.csv").read_text().splitlines()
            if ",blur,none,acc," in line
        )
        assert ",1," in row.partition("acc")[2]

    def test_a_run_that_was_stopped_is_told_from_one_never_begun(self, study: Path) -> None:
        (study / "blur_1" / runs.RESULT).unlink()
        (problem,) = read_study([study]).problems
        assert problem.reason.startswith("was stopped")

    def test_of_a_sweep_whole_runs_and_the_jobs_asked_for_last_count(self, study: Path) -> None:
        jobs = [{"folder": name, "overrides": ["x"]} for name in ("none_1", "noise_0")]
        (study / SWEEP).write_text(json.dumps({"command": "x", "jobs": jobs}))
        (study / "none_1" / runs.RESULT).unlink()
        (study / "blur_1" / runs.RESULT).unlink()
        found = read_study([study])
        assert {run.folder.name for run in found.runs} == {"none_0", "blur_0"}
        # blur_1 was stopped, too, but nobody asks for it any more.
        assert {problem.folder.name for problem in found.problems} == {"none_1", "noise_0"}


@pytest.mark.slow
class TestMatched:
    @pytest.fixture
    def both(self, study: Path) -> Path:
        """The same images, as they are and matched: other pixels."""
        for seed in (0, 1):
            run = write_run(study / f"matched_{seed}", "none", seed)
            result = json.loads((run / runs.RESULT).read_text())
            result["settings"]["dataset"]["match"] = "jpeg"
            result["test_hashes"] = {name: f"{name}, matched" for name in result["test_hashes"]}
            files.write_json(run / runs.RESULT, result)
        return study

    def test_stands_beside_what_is_not_and_is_compared_with_it(self, both: Path) -> None:
        write_report([both], both)
        lines = [
            line
            for line in (both / "report.md").read_text().splitlines()
            if "real + dcgan (unseen)" in line
        ]
        variants = [line.split(" | ")[1] for line in lines[:3]]
        assert variants == ["M (none)", "M_GB (blur)", "none, dataset.match=jpeg"]
        assert "| 60.5 | 95.1 | 26.0 |" in lines[0]
        assert "| - | - | - |" in lines[2]
        changes = list(csv.DictReader((both / "differences.csv").read_text().splitlines()))
        of_match = [one for one in changes if one["variant"] == "none, dataset.match=jpeg"]
        assert len(of_match) == 3 * 4
        # The same scores: nothing is changed.
        assert {one["difference"] for one in of_match} == {"0"}

    def test_of_other_pictures_is_refused(self, both: Path) -> None:
        path = both / "matched_0" / runs.SCORES
        columns = pq.read_table(path).to_pydict()
        columns["path"][3] = "another.png"
        files.write_columns(path, columns)
        with pytest.raises(UserError, match="matched_0") as refused:
            read_study([both])
        assert refused.value.key == "real"

    def test_of_another_match_twice_is_one_training_twice(self, both: Path) -> None:
        shutil.copytree(both / "matched_0", both / "matched_2")
        with pytest.raises(UserError, match=r"matched_0 and .*matched_2 are the same training"):
            read_study([both])


def with_settings(folder: Path, **settings: Any) -> Path:  # noqa: ANN401
    """Change settings of a run, by keys whose dots are written ``__``."""
    result = json.loads((folder / runs.RESULT).read_text())
    for name, value in settings.items():
        *groups, key = name.split("__")
        inner = result["settings"]
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[key] = value
    files.write_json(folder / runs.RESULT, result)
    return folder


def rows_of(folder: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / f"{name}.csv").read_text().splitlines()))


@pytest.mark.slow
class TestVariants:
    @pytest.mark.parametrize(
        ("key", "values"),
        [
            ("learning_rate", (1e-3, 1e-4)),
            ("batch_size", (16, 32)),
            ("max_epochs", (3, 9)),
            ("dataset__train_count", (20, 30)),
            ("model__channels", ([4, 8], [8, 16])),
        ],
    )
    def test_of_any_setting_make_rows_and_differences(
        self, key: str, values: tuple[Any, Any], tmp_path: Path
    ) -> None:
        for value in values:
            for seed in (0, 1):
                run = write_run(tmp_path / "s" / f"{value}_{seed}", "noise", seed)
                with_settings(run, **{key: value})
        assert main(["report", str(tmp_path / "s")]) == 0
        labels = [variant.label for variant in read_study([tmp_path / "s"]).variants]
        key = {"learning_rate": "model.learning_rate"}.get(key, key.replace("__", "."))
        written = [str(value).replace(" ", "") for value in values]
        assert set(labels) == {f"{key}={value}" for value in written}
        changes = rows_of(tmp_path / "s", "differences")
        # The same scores, three generators by four metrics.
        assert {(row["minus"], row["variant"]) for row in changes} == {tuple(labels)}
        assert [row["difference"] for row in changes] == ["0"] * 12

    def test_of_a_setting_that_earlier_versions_lacked_or_named_otherwise_are_one(
        self, tmp_path: Path
    ) -> None:
        write_run(tmp_path / "s" / "older", seed=0)
        for seed, front_end in ((1, "rgb"), (2, "lpd"), (3, "none"), (4, "median")):
            newer = write_run(tmp_path / "s" / front_end, seed=seed)
            with_settings(newer, model__front_end=front_end)
        study = read_study([tmp_path / "s"])
        seeds = {variant.settings: [run.seed for run in study.of(("pggan",), variant)]
                 for variant in study.variants}  # fmt: skip
        assert seeds == {
            (("model.front_end", "rgb"),): [0, 1, 3],
            (("model.front_end", "lpd"),): [2, 4],
        }

    def test_of_models_are_named_by_the_model_alone(self, tmp_path: Path) -> None:
        for seed in (0, 1):
            write_run(tmp_path / "s" / f"a_{seed}", seed=seed)
            other = write_run(tmp_path / "s" / f"b_{seed}", seed=seed, model="another")
            with_settings(other, model__depth=3, learning_rate=0.1)
        names = [variant.label for variant in read_study([tmp_path / "s"]).variants]
        assert names == ["dcgan_discriminator", "another"]

    def test_of_a_models_settings_count_among_runs_of_it(self, tmp_path: Path) -> None:
        write_run(tmp_path / "s" / "a")
        for rate in (0.1, 0.2):
            other = write_run(tmp_path / "s" / f"b_{rate}", model="another")
            with_settings(other, model__learning_rate=rate)
        names = [variant.label for variant in read_study([tmp_path / "s"]).variants]
        assert names == [
            "dcgan_discriminator",
            "another, model.learning_rate=0.1",
            "another, model.learning_rate=0.2",
        ]

    def test_of_two_settings_are_compared_with_the_first(self, tmp_path: Path) -> None:
        for rate in (0.1, 0.2):
            for preprocess in ("noise", "none"):
                run = write_run(tmp_path / "s" / f"{preprocess}_{rate}", preprocess)
                with_settings(run, model__learning_rate=rate)
        write_report([tmp_path / "s"], tmp_path)
        changes = rows_of(tmp_path, "differences")
        assert {row["minus"] for row in changes} == {"model.learning_rate=0.1, none"}
        assert len({row["variant"] for row in changes}) == 3
        # They are no longer what the paper trained.
        assert not any(row["paper"] for row in rows_of(tmp_path, "cells"))

    def test_only_of_another_preprocess_are_the_papers(self, tmp_path: Path) -> None:
        for number, preprocess in enumerate(("noise", "blur_noise", "blur", "none")):
            write_run(tmp_path / "s" / str(number), preprocess)
        found = read_study([tmp_path / "s"]).variants
        assert [variant.name for variant in found] == ["M", "M_GB", "M_GN", "blur_noise"]

    def test_settings_that_train_nothing_else_make_none(self, study: Path) -> None:
        with_settings(
            study / "none_1",
            cache_dir="/elsewhere",
            trainer__precision="fp32",
            perturb=[],
            dataset__root="/faces",
            dataset__folders={"real": "x"},
            dataset__match="none",
        )
        assert [variant.label for variant in read_study([study]).variants] == ["none", "blur"]

    @pytest.mark.usefixtures("undrawn")
    def test_that_tested_another_generator_leave_its_cells_out(self, illustrated: Path) -> None:
        study = illustrated
        for seed in (0, 1):
            path = study / f"blur_{seed}" / runs.RESULT
            result = json.loads(path.read_text())
            result["pairs"] = [pair for pair in result["pairs"] if pair["generator"] != "dcgan"]
            files.write_json(path, result)
        write_report([study], study)
        cells = rows_of(study, "cells")
        assert {row["variant"] for row in cells if row["generator"] == "dcgan"} == {"none"}
        assert {row["variant"] for row in cells if row["generator"] == "pggan"} == {"none", "blur"}


@pytest.mark.slow
class TestSeeds:
    def test_few_show_their_own_values(self, study: Path) -> None:
        write_report([study], study)
        changes = rows_of(study, "differences")
        assert not any(row["p"] or row["p_holm"] or row["seeds_low"] for row in changes)
        assert all(row["p_reason"] for row in changes)
        row = next(r for r in changes if (r["generator"], r["metric"]) == ("dcgan", "tnr"))
        by_seed = [
            np.mean(logits_of("dcgan", "blur", seed, ("pggan",)) < 0)
            - np.mean(logits_of("dcgan", "none", seed, ("pggan",)) < 0)
            for seed in (0, 1)
        ]
        assert list(map(float, row["by_seed"].split())) == pytest.approx(by_seed)

    def test_five_give_p_corrected_over_the_tests_of_a_metric(self, tmp_path: Path) -> None:
        for preprocess in ("none", "blur", "noise"):
            for seed in range(5):
                write_run(tmp_path / "s" / f"{preprocess}_{seed}", preprocess, seed)
        write_report([tmp_path / "s"], tmp_path)
        changes = [r for r in rows_of(tmp_path, "differences") if r["p"] and r["metric"] == "acc"]
        tests = len(changes)
        assert tests > 3
        plain, corrected = (sorted(float(row[key]) for row in changes) for key in ("p", "p_holm"))
        assert corrected[0] == pytest.approx(tests * plain[0], rel=1e-4)
        assert corrected[1] == pytest.approx(max((tests - 1) * plain[1], corrected[0]), rel=1e-4)
        assert all(c >= p for c, p in zip(corrected, plain, strict=True))


@pytest.mark.slow
class TestChance:
    def test_detectors_that_learnt_nothing_are_named_at_the_top(
        self, change: Callable[..., Path]
    ) -> None:
        found = {"auroc": 0.512, "interval": [0.47, 0.55], "chance": True}
        study = change(lambda result: result.update(validation=found))
        write_report([study], study)
        first = (study / "report.md").read_text().splitlines()[:4]
        assert first[0].startswith("**1 of 4 detectors")
        assert "none_1" in first[2]
        assert "0.512" in first[2]
        page = (study / "report.html").read_text()
        assert "none_1: " in page[: page.index("<h2")]

    def test_others_and_those_of_earlier_versions_are_not(
        self, change: Callable[..., Path]
    ) -> None:
        found = {"auroc": 0.9, "interval": [0.8, 0.95], "chance": False}
        study = change(lambda result: result.update(validation=found))
        write_report([study], study)
        assert "better than chance" not in (study / "report.md").read_text()


@pytest.mark.slow
class TestLacking:
    def test_a_metric_that_an_earlier_version_had_not_is_no_change(
        self, change: Callable[..., Path]
    ) -> None:
        def earlier(result: dict[str, Any]) -> None:
            for pair in result["pairs"]:
                del pair["ranking"]["eer"], pair["at_0.5"]["acc"], pair["at_source_0.05"]

        assert len(read_study([change(earlier)]).runs) == 4

    def test_a_threshold_that_some_runs_lack_is_left_out_of_theirs(self, study: Path) -> None:
        for seed in (0, 1):
            path = study / f"blur_{seed}" / runs.RESULT
            result = json.loads(path.read_text())
            del result["thresholds"]["source_0.05"]
            files.write_json(path, result)
        write_report([study], study)
        having = [r for r in rows_of(study, "cells") if r["threshold"] == "source_0.05"]
        assert {row["variant"] for row in having} == {"none"}

    def test_features_mistakes_and_perturbed_scores_may_be_missing(self, illustrated: Path) -> None:
        study = illustrated
        for run in study.iterdir():
            for name in (runs.FEATURES, runs.PERTURBED):
                (run / name).unlink()
            shutil.rmtree(run / runs.MISTAKES)
        write_report([study], study)
        assert not (study / "robustness.csv").exists()
        assert "Feature space" not in (study / "report.html").read_text()


class TestRefused:
    def test_folders_without_runs(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"There is no folder .*nowhere"):
            read_study([tmp_path / "nowhere"])
        with pytest.raises(UserError, match=r"holds no run of train\.py"):
            read_study([tmp_path])

    def test_a_study_without_any_result(self, study: Path) -> None:
        for path in study.glob("*/result.json"):
            path.unlink()
        with pytest.raises(
            UserError, match=r"None of the 4 jobs has a result, the first is .*blur_0"
        ):
            read_study([study])

    def test_other_test_images(self, change: Callable[..., Path]) -> None:
        def other(result: dict[str, Any]) -> None:
            result["test_hashes"]["dcgan"] = "another"

        with pytest.raises(UserError) as refused:
            read_study([change(other)])
        assert refused.value.key == "dcgan"

    def test_test_images_in_another_order(self, study: Path) -> None:
        path = study / "none_1" / runs.SCORES
        table = pq.read_table(path)
        files.write_columns(path, table.take([1, 0, *range(2, 80)]).to_pydict())
        with pytest.raises(UserError) as refused:
            read_study([study])
        assert refused.value.key == "real"

    def test_the_same_training_twice(self, study: Path, tmp_path: Path) -> None:
        copy = write_run(tmp_path / "copy", "blur", 1)
        with pytest.raises(UserError, match=r"blur_1 and .*copy are the same training"):
            read_study([study, copy])

    def test_the_same_folder_named_twice_is_one(self, study: Path) -> None:
        assert len(read_study([study, study / "blur_1"]).runs) == 4

    def test_a_run_of_another_program(self, study: Path, tmp_path: Path) -> None:
        (tmp_path / "foreign").mkdir()
        files.write_json(tmp_path / "foreign" / runs.RESULT, {"settings": {}})
        with pytest.raises(UserError, match=r"foreign is not a run of train"):
            read_study([study, tmp_path / "foreign"])

    def test_a_result_that_its_scores_do_not_give(self, change: Callable[..., Path]) -> None:
        def better(result: Mapping[str, Any]) -> None:
            result["pairs"][2]["at_0.5"]["acc"] += 0.05

        with pytest.raises(UserError, match=r"scores.parquet gives acc .* for dcgan"):
            read_study([change(better)])

    def test_several_folders_need_a_place(
        self, study: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["report", str(study / "none_0"), str(study / "none_1")]) == 1
        assert "--to FOLDER" in capsys.readouterr().err
