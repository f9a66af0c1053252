"""Reports of folders that are damaged or come from anywhere: refused, and nothing elsewhere."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_report import write_run

from forensics import files, runs
from forensics.errors import UserError
from forensics.reports.report import write_report
from forensics.reports.study import read_study

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


@pytest.fixture
def changed(run: Path) -> Callable[[Change], Path]:
    """Change ``result.json`` of the run."""

    def change(of: Change) -> Path:
        path = run / runs.RESULT
        result = json.loads(path.read_text())
        of(result)
        path.write_text(json.dumps(result))
        return path

    return change


def refused(folder: Path, path: Path) -> str:
    """The sentence with which the report refuses a file."""
    with pytest.raises(UserError) as raised:
        write_report([folder], folder)
    assert raised.value.key == str(path)
    return str(raised.value)


OUTSIDE = ["../x", "/etc", "a/b", "x/../../y", ".", "..", ".hidden", "", "a\0b"]


class TestNames:
    """A report's files are named by sources: none leads out of the folder."""

    @pytest.mark.parametrize("name", OUTSIDE)
    @pytest.mark.parametrize("place", ["pairs", "test_hashes", "train_on", "sources", "validation"])
    def test_of_sources_lead_nowhere(
        self, place: str, name: str, changed: Callable[[Change], Path], tmp_path: Path
    ) -> None:
        def change(result: dict[str, Any]) -> None:
            if place == "pairs":
                result["pairs"][0]["generator"] = name
            elif place == "test_hashes":
                result["test_hashes"][name] = "x"
            elif place == "train_on":
                result["settings"]["dataset"]["train_on"] = [name]
            elif place == "sources":
                rates = {f"tpr_at_{threshold}": 0.5 for threshold in result["thresholds"]}
                result["sources"] = [{"source": name, "real": True, "n": 1, "seen": False, **rates}]
            else:
                of = {name: {"seen": False, "n": 1, "auroc": 0.5}}
                none = {"chance": False, "auroc": 0.5, "interval": [0.4, 0.6]}
                result["validation"] = none | {"generators": of}

        path = changed(change)
        assert repr(name) in refused(path.parent, path)
        assert [one.name for one in tmp_path.iterdir()] == ["run"]

    @pytest.mark.parametrize("name", OUTSIDE)
    def test_in_the_scores_lead_nowhere(self, name: str, run: Path) -> None:
        table = pq.read_table(run / runs.SCORES).to_pydict()
        table["source"] = [name if one == "dcgan" else one for one in table["source"]]
        files.write_columns(run / runs.SCORES, table)
        refused(run, run / runs.SCORES)

    @pytest.mark.parametrize("name", ["../x", "/etc", "a/../../x", "", ".", "a\0b", "\ud800"])
    def test_of_jobs_lead_nowhere(self, name: str, run: Path) -> None:
        path = run.parent / runs.SWEEP
        record = {"command": "x", "jobs": [{"folder": name, "overrides": []}]}
        path.write_text(json.dumps(record))
        with pytest.raises(UserError) as raised:
            read_study([run.parent])
        assert raised.value.key == str(path)

    def test_are_no_html_in_markdown(self, changed: Callable[[Change], Path], run: Path) -> None:
        bad = "<img src=x onerror=alert(1)>"

        def change(result: dict[str, Any]) -> None:
            for pair in result["pairs"]:
                pair["generator"] = pair["generator"].replace("dcgan", bad)
            result["test_hashes"][bad] = result["test_hashes"].pop("dcgan")
            result["device"] = bad

        changed(change)
        table = pq.read_table(run / runs.SCORES).to_pydict()
        table["source"] = [bad if one == "dcgan" else one for one in table["source"]]
        files.write_columns(run / runs.SCORES, table)
        write_report([run], run)
        for name in ("report.md", "report.html"):
            assert "<img src=x" not in (run / name).read_text()
            assert "&lt;img src=x" in (run / name).read_text()


DELETED: Any = object()


class TestResult:
    @pytest.mark.parametrize(("key", "value"), [
        ("settings", DELETED), ("settings", None), ("settings.seed", DELETED),
        ("settings.seed", "0"), ("settings.dataset.train_on", "pggan"),
        ("settings.dataset.real", [1]), ("settings.max_epochs", None),
        ("thresholds", DELETED), ("thresholds", []), ("thresholds", {"0.5": None}),
        ("thresholds", {"magic": 0.0}), ("thresholds", {"source_2": 0.0}),
        ("temperature", "1"), ("toy", 0), ("toy", DELETED), ("model", 3), ("preprocess", DELETED),
        ("pairs", {}), ("pairs", [1]), ("pairs", [{"real": "real"}]), ("pairs", None),
        ("sources", [{"source": "real", "real": True, "n": 3}]), ("sources", {}),
        ("test_hashes", DELETED), ("test_hashes", []), ("test_hashes", {"real": 1}),
        ("images", {}), ("images", {"train": {"real": "50"}}), ("seconds", {"fit": "60"}),
        ("warnings", "x"), ("git_commit", 3), ("git_changed", "no"), ("versions", []),
        ("device", DELETED), ("threads", "1"), ("validation", {"chance": True}),
    ])  # fmt: skip
    def test_of_another_form_is_refused(
        self, key: str, value: object, changed: Callable[[Change], Path]
    ) -> None:
        def change(result: dict[str, Any]) -> None:
            *groups, name = key.split(".")
            for group in groups:
                result = result[group]
            if value is DELETED:
                del result[name]
            else:
                result[name] = value

        path = changed(change)
        refused(path.parent, path)

    @pytest.mark.parametrize("content", ["", "[]", "null", "{", "[" * 100000, '{"pairs": 1}', "\0"])
    def test_that_is_none_is_refused(self, content: str, run: Path) -> None:
        (run / runs.RESULT).write_text(content)
        with pytest.raises(UserError):
            write_report([run], run)

    @pytest.mark.parametrize("value", [None, "", [], {}, 10**400, math.nan, "0.5"])
    @pytest.mark.parametrize("part", ["ranking", "at_0.5"])
    def test_with_a_metric_that_is_no_number_is_refused(
        self, part: str, value: object, changed: Callable[[Change], Path]
    ) -> None:
        name = "auroc" if part == "ranking" else "acc"
        if value is not None:  # a metric that an earlier version did not have
            path = changed(lambda result: result["pairs"][0][part].update({name: value}))
            refused(path.parent, path.parent)
        if value != {}:
            path = changed(lambda result: result["pairs"][0].update({part: value}))
            refused(path.parent, path.parent)

    @pytest.mark.parametrize("thresholds", [{}, {"source_0.01": 0.0}])
    def test_without_the_threshold_of_comparisons_is_refused(
        self, thresholds: dict[str, float], changed: Callable[[Change], Path]
    ) -> None:
        path = changed(lambda result: result.update(thresholds=thresholds))
        refused(path.parent, path)

    def test_with_an_empty_cell_is_shown(self, changed: Callable[[Change], Path]) -> None:
        folder = changed(lambda result: result.update(epoch="")).parent
        write_report([folder], folder)

    @pytest.mark.parametrize("name", ["device", "git_commit", "x"])
    def test_with_text_that_no_file_can_have_is_refused(
        self, name: str, changed: Callable[[Change], Path]
    ) -> None:
        path = changed(lambda result: result.update({name: "\ud800"}))
        with pytest.raises(UserError, match="surrogates"):
            write_report([path.parent], path.parent)

    @pytest.mark.parametrize("hashes", [{}, {"real": "x"}])
    def test_without_its_sources_hashes_is_refused(
        self, hashes: dict[str, str], changed: Callable[[Change], Path], run: Path
    ) -> None:
        changed(lambda result: result.update(test_hashes=hashes))
        refused(run, run / runs.SCORES)

    @pytest.mark.parametrize("name", [runs.EVALUATION, runs.SWEEP, runs.FAILED])
    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"detectors": {}}', '{"jobs": {}}'])
    def test_of_another_kind_is_refused(self, name: str, content: str, tmp_path: Path) -> None:
        folder = tmp_path / "x"
        folder.mkdir()
        (folder / name).write_text(content)
        with pytest.raises(UserError) as raised:
            read_study([folder])
        assert raised.value.key == str(folder / name)


class TestScores:
    @pytest.fixture
    def columns(self, run: Path) -> dict[str, list[Any]]:
        return dict(pq.read_table(run / runs.SCORES).to_pydict())

    @pytest.mark.parametrize("content", [b"", b"x", b"PAR1PAR1", None])
    def test_that_cannot_be_read_are_refused(self, content: bytes | None, run: Path) -> None:
        if content is None:
            (run / runs.SCORES).unlink()
        else:
            (run / runs.SCORES).write_bytes(content)
        refused(run, run / runs.SCORES)

    @pytest.mark.parametrize("missing", ["source", "split", "logit", "path"])
    def test_without_a_column_are_refused(
        self, missing: str, columns: dict[str, list[Any]], run: Path
    ) -> None:
        pq.write_table(pa.table({k: v for k, v in columns.items() if k != missing}),
                       run / runs.SCORES)  # fmt: skip
        refused(run, run / runs.SCORES)

    @pytest.mark.parametrize("value", [None, "high", math.nan])
    def test_that_are_no_numbers_are_refused(
        self, value: Any, columns: dict[str, list[Any]], run: Path  # noqa: ANN401
    ) -> None:  # fmt: skip
        logits = [value, *columns["logit"][1:]]
        kind = pa.string() if isinstance(value, str) else pa.float32()
        if isinstance(value, str):
            logits = [str(one) for one in logits]
        table = {k: v for k, v in columns.items() if k != "logit"}
        pq.write_table(pa.table(table | {"logit": pa.array(logits, kind)}), run / runs.SCORES)
        refused(run, run / runs.SCORES)

    def test_in_another_order_are_not_those_of_the_result(
        self, columns: dict[str, list[Any]], run: Path, changed: Callable[[Change], Path]
    ) -> None:
        sha256 = files.sha256_of(run / runs.SCORES)
        changed(lambda result: result.update(scores_sha256=sha256))
        write_report([run], run)
        of_first = columns["logit"][:20]  # rates and AUROC stay the same
        files.write_columns(
            run / runs.SCORES, columns | {"logit": of_first[::-1] + columns["logit"][20:]}
        )
        assert "computed from" in refused(run, run / runs.SCORES)


class TestFurtherFiles:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        return write_run(tmp_path / "run", illustrated=True)

    @pytest.mark.parametrize("name", [runs.PERTURBED, runs.FEATURES, f"{runs.MISTAKES}/real.png"])
    @pytest.mark.parametrize("content", [b"", b"PAR1", b"GIF89a"])
    @pytest.mark.usefixtures("undrawn")
    def test_that_are_damaged_are_refused(self, name: str, content: bytes, run: Path) -> None:
        (run / name).write_bytes(content)
        refused(run, run / name)

    def test_with_an_unknown_perturbation_are_refused(self, run: Path) -> None:
        table = pq.read_table(run / runs.PERTURBED).to_pydict()
        unknown = table | {"perturbation": ["../magic"] * len(table["source"])}
        files.write_columns(run / runs.PERTURBED, unknown)
        refused(run, run / runs.PERTURBED)

    def test_with_fewer_images_are_refused(self, run: Path) -> None:
        table = pq.read_table(run / runs.PERTURBED)
        pq.write_table(table.slice(1), run / runs.PERTURBED)
        refused(run, run / runs.PERTURBED)
