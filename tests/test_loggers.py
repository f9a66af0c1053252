"""The table of epochs, TensorBoard's events and tracking services."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from forensics.errors import UserError
from forensics.training.loggers import Curves, EpochTable, Service, loggers, validation_loss


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "epochs.csv").open() as file:
        return list(csv.DictReader(file))


def test_an_epoch_is_a_row_and_a_step_is_none(tmp_path: Path) -> None:
    table = EpochTable(tmp_path)
    table.log_metrics({"train/loss_step": 0.9, "epoch": 0}, 10)
    table.log_metrics({"val/loss": 0.5, "epoch": 0}, 20)
    table.log_metrics({"train/loss": 0.25, "epoch": 0}, 20)
    table.log_metrics({"val/loss": 0.125, "epoch": 1}, 40)
    table.log_metrics({"unseen/auroc_mean": 0.5}, 40)
    assert rows(tmp_path) == [
        {"epoch": "1", "val/loss": "0.5", "train/loss": "0.25"},
        {"epoch": "2", "val/loss": "0.125", "train/loss": ""},
    ]
    assert validation_loss(tmp_path, 1) == 0.5
    assert validation_loss(tmp_path, 3) is None


def test_a_resumed_run_replaces_the_epochs_that_it_repeats(tmp_path: Path) -> None:
    table = EpochTable(tmp_path)
    for epoch in range(4):
        table.log_metrics({"val/loss": float(epoch), "epoch": epoch}, epoch)
    resumed = EpochTable(tmp_path)
    resumed.log_metrics({"val/loss": 9.0, "epoch": 2}, 2)
    assert [(row["epoch"], row["val/loss"]) for row in rows(tmp_path)] == [
        ("1", "0"), ("2", "1"), ("3", "9"),
    ]  # fmt: skip


def test_tensorboard_gets_no_curve_of_epoch_numbers(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    curves.log_metrics({"val/loss": 0.5, "epoch": 0}, 1)
    curves.finalize("success")
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"] == ["val/loss"]


def test_every_run_has_tensorboard_and_the_table(tmp_path: Path) -> None:
    assert [type(one) for one in loggers(Service.tensorboard, tmp_path)] == [Curves, EpochTable]


@pytest.mark.parametrize("service", [Service.wandb, Service.mlflow])
def test_a_service_without_its_package_is_refused(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("wandb", "mlflow"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    name = {"wandb": "_WANDB_AVAILABLE", "mlflow": "_MLFLOW_AVAILABLE"}[service]
    monkeypatch.setattr(f"pytorch_lightning.loggers.{service}.{name}", False)
    with pytest.raises(UserError) as raised:
        loggers(service, tmp_path)
    assert raised.value.key == "logger"
    assert service in str(raised.value)


def test_wandb_gets_the_same_metrics_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    *_, service = loggers(Service.wandb, tmp_path / "run")
    service.log_metrics({"val/loss": 0.5}, 1)
    assert service.experiment.summary["val/loss"] == 0.5  # type: ignore[attr-defined]
    service.experiment.finish()  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:The ``noload`` loader")  # between MLflow and SQLAlchemy
def test_mlflow_gets_the_same_metrics_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    *_, service = loggers(Service.mlflow, tmp_path / "run")
    service.log_metrics({"val/loss": 0.5}, 1)
    mlflow.set_tracking_uri(uri)
    run = mlflow.get_run(service.run_id)  # type: ignore[attr-defined]
    assert run.data.metrics == {"val/loss": 0.5}
    assert run.info.run_name == "run"
