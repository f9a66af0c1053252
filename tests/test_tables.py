"""Tables for the terminal, on results small enough to write by hand."""

from __future__ import annotations

from typing import Any

import pytest

from forensics.evaluation.summary import summarise
from forensics.reports.tables import (
    WIDTH,
    aligned,
    audit_table,
    findings,
    findings_table,
    in_order,
    quality_table,
    table_1,
    threshold_name,
)

THRESHOLDS = {"0.5": 0.0, "source_0.05": -1.0, "source_0.01": -2.0}


def rates(tpr: float, tnr: float) -> dict[str, Any]:
    values = {"acc": (tpr + tnr) / 2, "tpr": tpr, "tnr": tnr}
    intervals = {f"{name}_interval": [value - 0.01, value] for name, value in values.items()}
    return values | intervals


def pair(generator: str, *, seen: bool, auroc: float, tnr: float, real: str = "celeba") -> Any:  # noqa: ANN401
    ranking = {"auroc": auroc, "auroc_interval": [auroc - 0.1, auroc]}
    at = {f"at_{name}": rates(1.0, tnr - 0.1 * number) for number, name in enumerate(THRESHOLDS)}
    counts = {"n_real": 10000, "n_generated": 10000}
    return {"real": real, "generator": generator, "seen": seen, "ranking": ranking} | counts | at


def result_of(*pairs: dict[str, Any]) -> dict[str, Any]:
    unseen_real = {"source": "lfw", "n": 2000, "real": True, "seen": False}
    for name in THRESHOLDS:
        unseen_real |= {f"tpr_at_{name}": 0.875, f"tpr_at_{name}_interval": [0.8, 0.9]}
    tnr = {f"tnr_at_{name}": 0.25 for name in THRESHOLDS}
    validated = {"held_out": {"seen": False, "auroc": 0.75, "interval": [0.7, 0.8]} | tnr}
    return {
        "thresholds": THRESHOLDS,
        "pairs": list(pairs),
        "sources": [unseen_real],
        "summary": summarise(pairs, list(THRESHOLDS)),
        "validation": {"generators": validated},
    }


RESULT = result_of(
    pair("pggan", seen=True, auroc=0.9, tnr=0.9),
    pair("dcgan", seen=False, auroc=0.8, tnr=0.8),
    pair("wgan_gp", seen=False, auroc=0.7, tnr=0.4),
)


class TestTable1:
    def test_has_auroc_once_and_a_block_for_each_threshold_in_order(self) -> None:
        auroc, *of_thresholds, validated = table_1(RESULT).split("\n\n")
        assert auroc.splitlines()[1].split() == [
            "celeba", "+", "pggan", "(seen)", "10000+10000", "0.900", "[0.800,", "0.900]",
        ]  # fmt: skip
        assert auroc.splitlines()[-1] == (
            "unseen: mean AUROC 0.750, worst 0.700 (celeba + wgan_gp)"
        )
        assert [block.splitlines()[0] for block in of_thresholds] == [
            "threshold 0.5, the paper's",
            "threshold at 5 % FPR on validation real images",
            "threshold at 1 % FPR on validation real images",
        ]
        assert "AUROC" not in "".join(of_thresholds)
        assert "held_out: AUROC 0.750 [0.700, 0.800]" in validated
        assert "25.0 % at the threshold at 1 % FPR" in " ".join(validated.split())

    def test_says_mean_and_worst_of_the_unseen_generators_below_each_threshold(self) -> None:
        _, half, five, *_ = table_1(RESULT).split("\n\n")
        # (1 + 0.8) / 2 and (1 + 0.4) / 2; at the next threshold TNR is 0.1 lower
        assert half.splitlines()[-1] == (
            "unseen: mean balanced accuracy 80.0 %, worst 70.0 % (celeba + wgan_gp)"
        )
        assert "mean balanced accuracy 75.0 %, worst 65.0 %" in five

    def test_gives_unseen_real_images_their_only_rate(self) -> None:
        _, half, *_ = table_1(RESULT).split("\n\n")
        (line,) = [line for line in half.splitlines() if "lfw" in line]
        assert line.split()[-5:] == ["-", "87.5", "[80.0,", "90.0]", "-"]

    def test_without_unseen_generators_has_no_such_line(self) -> None:
        seen = result_of(pair("pggan", seen=True, auroc=0.9, tnr=0.9))
        assert "unseen:" not in table_1(seen)

    @pytest.mark.parametrize("length", [5, 20, 30])
    def test_keeps_to_the_width_and_gives_long_names_a_line_of_their_own(self, length: int) -> None:
        long = result_of(
            pair("g" * length, seen=False, auroc=1.0, tnr=1.0, real="r" * length),
            pair("x", seen=True, auroc=1.0, tnr=1.0, real="r" * length),
        )
        lines = table_1(long).splitlines()
        assert max(map(len, lines)) <= WIDTH
        alone = f"{'r' * length} + {'g' * length} (unseen)" in lines
        assert alone is (length > 5)
        assert any(line.endswith("  100 [99.0, 100]") for line in lines)


def test_columns_are_as_wide_as_their_cells() -> None:
    rows = [["a", "1", "x"], ["bb", "22", "yyy"], ["c" * 75, "3", "z"]]
    assert aligned(rows, "lrl").splitlines() == [
        "a    1  x",
        "bb  22  yyy",
        "c" * 75,
        "     3  z",
    ]  # fmt: skip


def test_thresholds_have_one_order_wherever_they_come_from() -> None:
    shuffled = ["source_0.01", "oracle", "source_0.05", "0.5", "source_0.05"]
    assert in_order(shuffled) == ["0.5", "source_0.05", "source_0.01", "oracle"]
    assert threshold_name("source_0.01") == "threshold at 1 % FPR on validation real images"


def trait(name: str, verdict: str, auroc: float | None = 0.95) -> dict[str, Any]:
    who = {"trait": name, "real": "celeba+utkface", "generator": "pggan"}
    return who | {"n_real": 300, "n_generated": 300, "auroc": auroc, "verdict": verdict}


AUDITED: dict[str, Any] = {
    "images": {"celeba": {"real": True}, "utkface": {"real": True}, "pggan": {"real": False}},
    "traits": [
        trait("format", "warning", 1.0),
        trait("spectrum", "warning"),
        trait("size", "matched"),
        trait("colour", "ok", 0.5),
        trait("exif", "not measured", None),
    ],
    "repetitions": [
        {"sources": ["celeba", "celeba"], "copies": [2, 2], "near_duplicates": [40, 40],
         "verdict": "warning"},
        {"sources": ["celeba", "pggan"], "copies": [0, 0], "near_duplicates": [3, 4],
         "verdict": "warning"},
    ],
    "across_border": [{"source": "utkface", "near_duplicates": 7, "verdict": "warning"}],
    "warnings": ["a sentence"],
}  # fmt: skip


class TestAudit:
    def test_table_has_a_line_for_each_check_and_the_remedy_of_each_finding(self) -> None:
        lines = audit_table(AUDITED).splitlines()
        assert max(map(len, lines)) <= WIDTH
        assert "a sentence" not in lines
        verdicts = [line.split("  ")[-1].strip() for line in lines if line]
        assert "warning: dataset.match=codec" in verdicts
        assert verdicts.count("warning: dataset.drop_near_duplicates=true") == 2
        assert verdicts.count("warning: remove one of the two") == 2  # once for each source
        assert {"matched", "ok", "not measured"} < set(verdicts)

    def test_findings_are_the_warnings_alone(self) -> None:
        found = findings(AUDITED, "none")
        assert found == {
            "pggan / celeba+utkface: format": ["1.000", "dataset.match=codec"],
            "pggan / celeba+utkface: spectrum": ["0.950", "dataset.match=resample"],
            "celeba: same images": ["40", "dataset.drop_near_duplicates=true"],
            "celeba / pggan: same images": ["3+4", "remove one of the two"],
            "utkface: training like test images": [
                "7", "dataset.drop_near_duplicates=true",
            ],
        }  # fmt: skip
        lines = findings_table(found).splitlines()
        assert len(lines) == 1 + len(found)
        assert max(map(len, lines)) <= WIDTH
        assert findings_table({}) == ""

    def test_a_remedy_already_taken_is_not_proposed(self) -> None:
        found = findings(AUDITED, "resample")
        assert found["pggan / celeba+utkface: spectrum"][1] == "in spite of dataset.match=resample"
        assert found["pggan / celeba+utkface: format"][1] == "dataset.match=codec"


def test_quality_of_samples_keeps_to_the_width() -> None:
    quality = {
        "sliced_wasserstein": {"128 px": 86.1, "mean": 36.6},
        "sliced_wasserstein_real": None,
        "ms_ssim": 0.27,
        "ms_ssim_real": 0.25,
        "shortcuts": {"an 8x8 thumbnail": 0.944},
        "fid_reason": "torch-fidelity and its weights are not installed: " + "pip install it " * 5,
    }
    lines = quality_table({"quality": quality}).splitlines()
    assert max(map(len, lines)) <= WIDTH
    (alike,) = [line for line in lines if line.startswith("MS-SSIM")]
    assert alike.split()[-2:] == ["0.270", "0.250"]
    assert any(line.startswith("not measured: fid") for line in lines)
