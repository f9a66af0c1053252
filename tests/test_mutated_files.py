"""The study of mutated files, a little of it: nothing crashes or is silently other pixels."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    path = ROOT / "experiments" / "reliability" / "mutated_files.py"
    spec = importlib.util.spec_from_file_location("mutated_files", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its worker process looks for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(study: ModuleType) -> list[dict[str, Any]]:
    return [study.judged(number) for number in range(len(study.originals()) * len(study.MUTATIONS))]


def test_originals_are_accepted_and_opencv_agrees(study: ModuleType) -> None:
    for kind, content in study.originals().items():
        pixels, flag, _ = study.decode(content, 1)
        assert flag == "", kind
        assert study.distance(np.asarray(pixels), study.by_opencv(content)) < study.DISTANCE, kind


def test_no_file_crashes_or_is_other_pixels_than_opencv_sees(
    study: ModuleType, rows: list[dict[str, Any]]
) -> None:
    assert len(rows) > 200
    assert [row for row in rows if study.needs_a_look(row)] == []


def test_metadata_is_never_a_reason_and_changes_no_pixel(rows: list[dict[str, Any]]) -> None:
    odd = [row for row in rows if row["mutation"] in ("odd metadata", "bytes behind the end")]
    assert len(odd) > 30
    assert [row for row in odd if row["verdict"] == "rejected" or row["moved"] > 1] == []


def test_a_cut_file_is_rejected_or_flagged_with_all_its_pixels(rows: list[dict[str, Any]]) -> None:
    cut = [row for row in rows if row["mutation"] in ("cut", "cut, with an end mark", "zeros")]
    silent = [
        row
        for row in cut
        if row["verdict"] == "accepted" and row["moved"] > 0 and not row["kind"].startswith("webp")
    ]
    assert silent == []


def test_a_file_has_its_number(study: ModuleType) -> None:
    for number in (0, 77, 12_345):
        assert study.mutated(number) == study.mutated(number)
    assert study.mutated(0).content != study.mutated(221).content


def test_a_killed_worker_is_a_row_and_a_stopped_run_resumes(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "rows.jsonl"
    kept.write_text("".join(f"{json.dumps(study.judged(number))}\n" for number in range(3)))
    ends = iter([True, False])

    class Worker:
        """The first one dies before it answers; the second one is in this process."""

        def __init__(self, target: Any, args: tuple[Any, ...]) -> None:  # noqa: ANN401
            self._answers = not next(ends)
            self._target, self._args = target, args

        def start(self) -> None:
            if self._answers:
                self._target(*self._args)

        def kill(self) -> None: ...

        def join(self) -> None: ...

    context = study.multiprocessing.get_context("spawn")
    monkeypatch.setattr(context, "Process", Worker, raising=False)
    monkeypatch.setattr(study.multiprocessing, "get_context", lambda _: context)
    found = study.run(6, kept)
    assert [row["number"] for row in found] == list(range(6))
    assert [row["verdict"] == "crash" for row in found] == [False] * 3 + [True, False, False]
    assert len(kept.read_text().splitlines()) == 6
