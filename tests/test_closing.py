"""What a sweep says at its end, against rates worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_report import write_run

from forensics.errors import UserError
from forensics.reports.closing import closing
from forensics.reports.findings import findings
from forensics.reports.report import write_report
from forensics.reports.study import read_study
from forensics.reports.tables import WIDTH


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    for preprocess in ("none", "blur"):
        for seed in (0, 1):
            write_run(tmp_path / f"{preprocess}_{seed}", preprocess, seed)
    return tmp_path


def said_of(folder: Path) -> str:
    study = read_study([folder])
    return closing(study, findings(study))


def rates(folder: Path, preprocess: str, generator: str) -> list[float]:
    """Balanced accuracy at the 5 % threshold, which is -1, by seed, counted from the scores."""
    runs = [run for run in read_study([folder]).runs if run.settings["preprocess"] == preprocess]
    return [
        float(((run.logits["real"] >= -1).mean() + (run.logits[generator] < -1).mean()) / 2)
        for run in sorted(runs, key=lambda run: run.seed)
    ]


def test_has_the_finding_first_then_each_variant_over_its_seeds(swept: Path) -> None:
    said = said_of(swept)
    assert said.startswith("On unseen generators balanced accuracy is ")
    assert max(map(len, said.splitlines())) <= WIDTH
    _, table = said.split("Balanced accuracy in percent, threshold at 5 % FPR")
    lines = table.splitlines()[2:4]
    for line, preprocess in zip(lines, ("none", "blur"), strict=True):
        by_generator = {one: rates(swept, preprocess, one) for one in ("wgan_gp", "dcgan")}
        by_seed = np.mean(list(by_generator.values()), axis=0)
        worst = min(np.mean(values) for values in by_generator.values())
        *_, seeds, mean, spread, low, real, _, _ = line.split()
        assert (seeds, mean, low, real) == (
            "2", f"{100 * by_seed.mean():.1f}", f"{100 * worst:.1f}", "real",
        )  # fmt: skip
        assert spread == f"({100 * by_seed.min():.1f}..{100 * by_seed.max():.1f})"


def test_training_sets_are_named_where_there_are_several(swept: Path) -> None:
    write_run(swept / "dcgan", "none", 0, ("dcgan",))
    everything = ("pggan", "wgan_gp", "dcgan")
    write_run(swept / "all", "none", 0, everything)
    lines = said_of(swept).splitlines()
    assert any("trained on dcgan" in line for line in lines)
    (alone,) = (number for number, line in enumerate(lines) if "+".join(everything) in line)
    cells = f"{lines[alone]} {lines[alone + 1]}".split()
    assert cells[cells.index("1") :][:4] == ["1", "-", "-", "-"]  # nothing is unseen
    assert max(map(len, lines)) <= WIDTH


def test_caveats_and_the_page_come_last(swept: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_run(swept / "toy", "noise", 0, toy=True)
    with caplog.at_level("INFO", "forensics"):
        write_report([swept], swept)
    said, where = (message.strip() for message in caplog.messages[-2:])
    assert said.splitlines()[0].startswith("On unseen generators")
    assert "Toy data" in said.splitlines()[-1]
    assert where.endswith("report.html")


def test_trials_are_no_evidence(tmp_path: Path) -> None:
    write_run(tmp_path / "trial", debug=True)
    assert "no evidence" in said_of(tmp_path).splitlines()[-1]
    write_run(tmp_path / "complete", seed=1)
    with pytest.raises(UserError) as caught:
        read_study([tmp_path])
    assert Path(str(caught.value.key)).name == "trial"
