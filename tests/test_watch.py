"""Curves of unseen generators during training: what they show, and that nothing depends on them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import SIZE, write_images
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from forensics.data.datamodule import FaceData
from forensics.data.settings import DatasetSettings
from forensics.errors import UserError
from forensics.evaluation.watch import watched
from forensics.preprocess.handling import Untouched

TRAIN = Path(__file__).parents[1] / "train.py"


def opened(settings: DatasetSettings, cache: Path) -> FaceData:
    data = FaceData(settings, Untouched(), 4, 0, cache, spare=4)
    data.setup()
    return data


def test_watched_images_are_in_no_part_of_the_split(
    faces: Callable[..., DatasetSettings], tmp_path: Path
) -> None:
    settings = faces(train_count=12, test_count=5)
    data = opened(settings, tmp_path / "cache")
    part = watched(data.sources, settings, data.split, 4)
    names = [data.sources[position].name for position in part.source]
    assert [names.count(name) for name in ("real", "seen", "unseen")] == [4, 0, 4]
    digests = {
        name: {
            data.sources[s].digests[r]
            for s, r in zip(of.source.tolist(), of.row.tolist(), strict=True)
        }
        for name, of in [("watch", part), *data.split._asdict().items()]
        if name in ("watch", "train", "validation", "test")
    }
    for name in ("train", "validation", "test"):
        assert digests["watch"].isdisjoint(digests[name])


def test_a_copy_of_a_test_image_is_not_watched(
    faces: Callable[..., DatasetSettings], tmp_path: Path
) -> None:
    settings = faces(train_count=12, test_count=5)
    folder = Path(settings.folder("unseen"))
    tested = sorted(folder.iterdir())[-1]
    (folder / "000.png").write_bytes(tested.read_bytes())
    data = opened(settings, tmp_path / "cache")
    part = watched(data.sources, settings, data.split, 4)
    paths = [data.sources[s].paths[r] for s, r in zip(part.source, part.row, strict=True)]
    assert "000.png" not in [
        path for path, s in zip(paths, part.source, strict=True)
        if data.sources[s].name == "unseen"
    ]  # fmt: skip


def test_without_free_images_the_counts_are_named(
    faces: Callable[..., DatasetSettings], tmp_path: Path
) -> None:
    settings = faces()
    data = opened(settings, tmp_path / "cache")
    with pytest.raises(UserError) as raised:
        watched(data.sources, settings, data.split, 4)
    assert raised.value.key == "watch"
    assert "dataset.train_count" in str(raised.value)


@pytest.mark.usefixtures("undrawn")
def test_watching_changes_nothing_but_the_curves(
    arguments: list[str], run_program: Callable[..., int], tmp_path: Path
) -> None:
    write_images(tmp_path / "faces" / "unseen", 16, 5, SIZE)
    few = ["dataset.train_count=12", "dataset.test_count=6", "monitor=val/auroc", "audit=off"]
    for name, watch in (("with", 4), ("without", 0)):
        assert run_program(TRAIN, *arguments, *few, f"name={name}", f"watch={watch}") == 0
    with_, without = tmp_path / "outputs/with", tmp_path / "outputs/without"

    one, other = (
        torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
        for folder in (with_, without)
    )
    assert one["epoch"] == other["epoch"]
    for key, tensor in one["state_dict"].items():
        assert torch.equal(tensor, other["state_dict"][key])
    assert pq.read_table(with_ / "scores.parquet") == pq.read_table(without / "scores.parquet")
    results = [json.loads((folder / "result.json").read_text()) for folder in (with_, without)]
    assert results[0]["thresholds"] == results[1]["thresholds"]

    curves = EventAccumulator(str(with_)).Reload()
    watched_tags = {tag for tag in curves.Tags()["scalars"] if tag.startswith("watch/")}
    assert watched_tags == {"watch/auroc/unseen", "watch/auroc_mean", "watch/auroc_worst"}
    assert len(curves.Scalars("watch/auroc/unseen")) == 2  # a value after each epoch
    with (with_ / "epochs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["watch/auroc_mean"]) for row in rows] == pytest.approx(
        [event.value for event in curves.Scalars("watch/auroc_mean")], abs=1e-5
    )
    assert not EventAccumulator(str(without)).Reload().Tags()["scalars"].count("watch/auroc_mean")
    assert np.isfinite([float(row["val/loss"]) for row in rows]).all()
