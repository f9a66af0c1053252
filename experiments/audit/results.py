"""The checks of several audits as one table: ``python results.py TABLE.csv AUDIT_FOLDER...``."""

import argparse
import csv
import json
from pathlib import Path


def main(table_file: Path, folders: list[Path]) -> None:
    """Write the table."""
    with table_file.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["check", "of", "n", "value", "limit", "verdict"])
        for folder in folders:
            audit = json.loads((folder / "audit.json").read_text())
            for check in audit["traits"]:
                of, n = (
                    f"{check['real']} / {check['generator']}",
                    f"{check['n_real']}+{check['n_generated']}",
                )
                auroc = f"{check['auroc']:.4f}"
                table.writerow([check["trait"], of, n, auroc, check["limit"], check["verdict"]])
            for check in audit["repetitions"]:
                of = " / ".join(dict.fromkeys(check["sources"]))
                n = "+".join(
                    str(audit["images"][s]["all"]) for s in dict.fromkeys(check["sources"])
                )
                for what in ("copies", "near_duplicates"):
                    value = check[what][0]
                    table.writerow([what, of, n, value, check["limit"], check["verdict"]])
            for check in audit["across_border"]:
                of, n = check["source"], check["fitted"]
                value, limit, verdict = (check[k] for k in ("near_duplicates", "limit", "verdict"))
                table.writerow(["near_duplicates across the border", of, n, value, limit, verdict])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="csv file to write")
    parser.add_argument("folder", nargs="+", type=Path, help="of an audit")
    given = parser.parse_args()
    main(given.table, given.folder)
