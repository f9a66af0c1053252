"""Scoring on a cluster: the rows of the local engine, nothing lost and nothing twice."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_images

from forensics.cli import main
from forensics.errors import UserError
from forensics.scoring import Predictor, cluster
from forensics.scoring.cluster import (
    Partition,
    PartitionScorer,
    as_table,
    expanded,
    partitions,
    place,
)
from forensics.scoring.gather import Gathered, gather

HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five images, a text file and a file without bytes, seen from the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "PARTITION_IMAGES", 4)
    write_images(Path("photos"), 5)
    Path("photos/text.png").write_text("text")
    Path("photos/empty.jpg").touch()
    Path("photos/link.png").symlink_to("000.png")
    return tmp_path


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """A file system in memory, empty before and after."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def scored(detector_file: Path, gathered: Gathered, output: str) -> pa.Table:
    """The rows of all partitions, scored in this process."""
    loaded = Predictor.load(detector_file)
    scorer = PartitionScorer(
        loaded.scorer.detector, loaded.card, loaded.sha256, output, os.getcwd()
    )
    system, path = place(output)
    system.create_dir(path, recursive=True)
    for partition in partitions(gathered.paths, gathered.refused):
        counted = scorer(as_table(partition))
        assert counted["images"].to_pylist() == [partition.images]
    return pq.read_table(path, filesystem=system)


def write_parquet(path: str, images: list[bytes | None], rows_per_group: int) -> None:
    """Write images as the Hugging Face hub does."""
    column = [None if image is None else {"bytes": image, "path": None} for image in images]
    system, inside = place(path)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    with system.open_output_stream(inside) as file:
        pq.write_table(pa.table({"image": pa.array(column, kind)}), file, rows_per_group)


def local_rows(detector_file: Path, *given: str) -> pa.Table:
    """The local engine's table."""
    assert main(["predict", str(detector_file), *given, "-o", "local.parquet"]) == 0
    return pq.read_table("local.parquet")


def test_rows_are_those_of_the_local_engine(detector_file: Path) -> None:
    raw = os.fsdecode(b"photos/\xff.png")
    Path(raw).write_bytes(Path("photos/001.png").read_bytes())
    given = ["photos", "none.png"]
    rows = scored(detector_file, gather(given, []), "scores")
    assert rows == local_rows(detector_file, *given)
    assert [bool(error) for error in rows["error"].to_pylist()].count(True) == 4


def test_object_storage_is_read_and_written(
    detector_file: Path, memory: fsspec.AbstractFileSystem
) -> None:
    memory.mkdirs("/bucket/a")
    for path in sorted(Path("photos").glob("0*.png")):
        memory.pipe(f"/bucket/a/b c%20?{path.name}", path.read_bytes())
    memory.pipe("/bucket/a/.hidden.png", b"")
    memory.pipe("/bucket/._x/c.png", b"")
    given = ["memory://bucket", "memory://bucket/none.png"]
    gathered = expanded(gather(given, []), given)
    rows = scored(detector_file, gathered, "memory://out/scores")
    local = local_rows(detector_file, *map(str, sorted(Path("photos").glob("0*.png"))))
    assert gathered.passed_over.total() == 2
    assert rows.slice(0, 5).drop_columns("path") == local.drop_columns("path")
    assert rows["path"].to_pylist() == [
        *(f"memory://bucket/a/b c%20?{number:03d}.png" for number in range(5)),
        "memory://bucket/none.png",
    ]
    assert "none.png" in str(rows["error"][-1])
    assert set(memory.ls("/out/scores", detail=False)) == {
        "/out/scores/000000.parquet", "/out/scores/000001.parquet"
    }  # fmt: skip


def test_images_in_parquet_are_scored_by_row(
    detector_file: Path, memory: fsspec.AbstractFileSystem
) -> None:
    files = sorted(Path("photos").glob("0*.png"))
    content = [path.read_bytes() for path in files]
    write_parquet("memory://d/a.parquet", [*content, None, b"", *content[:3]], 3)
    memory.pipe("/d/b.parquet", b"no parquet")
    given = ["memory://d"]
    gathered = expanded(gather(given, []), given)
    rows = scored(detector_file, gathered, "scores")
    local = local_rows(detector_file, *map(str, files))
    names = [f"memory://d/a.parquet, row {row}" for row in range(10)]
    assert rows["path"].to_pylist() == [*names, "memory://d/b.parquet"]
    logits = [*local["logit"].to_pylist(), None, None, *local["logit"].to_pylist()[:3], None]
    assert rows["logit"].to_pylist() == logits
    assert all((error != "") == (logit is None) for error, logit in
               zip(rows["error"].to_pylist(), logits, strict=True))  # fmt: skip


def test_partitions_have_every_row_once_and_the_order_given() -> None:
    draws = np.random.default_rng(0)
    paths, expected = [], []
    for number in range(12):
        if draws.random() < 0.5:
            rows, name = int(draws.integers(1, 14)), f"{number}.parquet"
            write_parquet(name, [b""] * rows, int(draws.integers(1, 6)))
            expected += [(name, row) for row in range(rows)]
        else:
            name = f"{number}.png"
            expected.append((name, 0))
        paths.append(name)
    found, last = [], -1
    for number, partition in enumerate(partitions(paths, {})):
        assert partition.number == number
        assert partition.images > 0
        if partition.groups:
            (name,) = partition.names
            metadata = pq.read_metadata(name)
            sizes = [metadata.row_group(group).num_rows for group in partition.groups]
            assert sum(sizes[:-1]) < 4 <= max(4, sum(sizes))
            found += [(name, partition.first + row) for row in range(sum(sizes))]
            assert partition.images == sum(sizes)
        else:
            assert partition.images == len(partition.names) <= 4
            found += [(name, 0) for name in partition.names]
        assert len(found) > last
        last = len(found)
    assert found == expected


def test_a_partition_survives_the_way_to_another_machine() -> None:
    partition = Partition(3, [os.fsdecode(b"\xff.png"), "ü"], ["", "a link"], [], 0, 2)
    (row,) = as_table(partition).to_pylist()
    assert cluster._from_row(row) == partition


@pytest.mark.parametrize("uri", ["none://a/b.png", "s4://a"])
def test_an_unknown_file_system_is_named(uri: str) -> None:
    with pytest.raises(UserError) as raised:
        place(uri)
    assert str(raised.value.key).startswith(uri.partition("/")[0])


def test_pages_need_the_local_engine(
    detector_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["predict", str(detector_file), "photos", "-o", "scores", "--engine", "ray"]
    assert main([*given, "--page", "page.html"]) == 1
    assert "--page" in capsys.readouterr().err


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_the_extra_is_named(
    detector_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["predict", str(detector_file), "photos", "-o", "scores", "--engine", "ray"]
    assert main(given) == 1
    assert ".[ray]" in capsys.readouterr().err
    assert not Path("scores").exists()


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster of two machines of one core each, on this machine."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    machines = cluster_utils.Cluster()
    machines.add_node(num_cpus=0, include_dashboard=False)
    for _ in range(2):
        machines.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", machines.address)
    yield
    machines.shutdown()


def scorers() -> list[int]:
    """Processes of the cluster that score."""
    psutil = pytest.importorskip("psutil")
    below = psutil.Process().children(recursive=True)
    return [one.pid for one in below if "PartitionScorer" in " ".join(one.cmdline())]


# Ray's own, of its processes and files.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_doubles_nothing(
    detector_file: Path, two_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PARTITION_IMAGES", 32)
    write_images(Path("many"), 2000)
    given = ["many", "photos", "none.png"]
    command = [
        sys.executable, "-c",
        "from forensics.scoring import cluster; from forensics.cli import main; "
        "cluster.PARTITION_IMAGES = 32; raise SystemExit(main())",
        "predict", str(detector_file), *given, "-o", "scores", "--engine", "ray",
    ]  # fmt: skip
    with subprocess.Popen(command) as running:
        while len(list(Path("scores").glob("*.parquet"))) < 3:
            assert running.poll() is None
            time.sleep(0.01)
        at_work = scorers()
        os.kill(at_work[0], signal.SIGKILL)
        assert len(list(Path("scores").glob("*.parquet"))) < 60
        assert running.wait() == 0
    assert len(at_work) == 2
    assert pq.read_table("scores") == local_rows(detector_file, *given)
    written = {path.name: path.stat().st_mtime_ns for path in Path("scores").glob("*.parquet")}
    assert len(written) == 63

    # The run is resumed by its missing partitions alone.
    for name in ("000007.parquet", "000011.parquet"):
        Path("scores", name).unlink()
    main(["predict", str(detector_file), *given, "-o", "scores", "--engine", "ray", "--resume"])
    again = {path.name: path.stat().st_mtime_ns for path in Path("scores").glob("*.parquet")}
    assert {name for name in written if written[name] != again[name]} == {
        "000007.parquet", "000011.parquet"
    }  # fmt: skip
    assert pq.read_table("scores") == pq.read_table("local.parquet")
