"""Output files of an audit: findings, duplicates and near-duplicates, spectra."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forensics.evaluation.audit import Audited
from forensics.files import atomic, csv_cell, write_json
from forensics.images.spectra import mean_log_power
from forensics.reports.figures import spectra

SPECTRUM_IMAGES = 256


def write_audit(
    to: Path,
    found: Mapping[str, Any],
    sources: Sequence[Audited],
    groups: Sequence[NDArray[np.int64]],
) -> None:
    """Write ``audit.json``, ``duplicates.csv`` and ``spectra.png``.

    Args:
        to: the folder, created if missing.
        found: the result of `forensics.evaluation.audit.audit`.
        sources: the audited sources.
        groups: by source, the group of each row; rows of one group show the same image.
    """
    to.mkdir(parents=True, exist_ok=True)
    members = np.bincount(np.concatenate(groups))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["group", "source", "path"])
    table.writerows(
        sorted(
            (int(group), csv_cell(audited.source.name), csv_cell(audited.source.paths[row]))
            for audited, of_source in zip(sources, groups, strict=True)
            for row, group in enumerate(of_source)
            if members[group] > 1
        )
    )
    with atomic(to / "duplicates.csv") as file:
        file.write(text.getvalue().encode())
    figure = spectra(
        {
            audited.source.name: mean_log_power(audited.source.rows[:SPECTRUM_IMAGES])
            for audited in sources
        }
    )
    with atomic(to / "spectra.png") as file:
        figure.savefig(file, format="png", dpi=100)
    write_json(to / "audit.json", found)
