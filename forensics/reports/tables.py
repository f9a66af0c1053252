"""Text tables for the terminal: Table 1 of a run, audits, sample quality."""

from collections.abc import Mapping
from typing import Any

from forensics.evaluation.metrics import AT_THRESHOLD


def table_1(result: Mapping[str, Any]) -> str:
    """ACC, TPR and TNR of every test pair at every threshold, in percent, with intervals.

    Below them TPR of unseen real sources, and AUROC and TNR of generators used for validation only.

    Args:
        result: content of ``result.json``.
    """
    lines = []
    header = f"{'test pair':<34}{'n':>13}" + "".join(f"{m.upper():>21}" for m in AT_THRESHOLD)
    for name in result["thresholds"]:
        lines += [threshold_name(name), header]
        for pair in result["pairs"]:
            seen = "seen" if pair["seen"] else "unseen"
            title = f"{pair['real']} + {pair['generator']} ({seen})"
            counts = f"{pair['n_real']}+{pair['n_generated']}"
            at = pair[f"at_{name}"]
            cells = "".join(f"{cell(at, metric):>21}" for metric in AT_THRESHOLD)
            lines.append(f"{title:<34}{counts:>13}{cells}")
        for source in result["sources"]:
            if source["real"] and not source["seen"]:
                at = {"tpr": source[f"tpr_at_{name}"],
                      "tpr_interval": source[f"tpr_at_{name}_interval"]}  # fmt: skip
                cells = "".join(f"{cell(at, metric):>21}" for metric in AT_THRESHOLD)
                title = f"{source['source']} (real, unseen)"
                lines.append(f"{title:<34}{source['n']:>13}{cells}")
        lines.append("")
    for name, found in result.get("validation", {}).get("generators", {}).items():
        if not found["seen"]:
            low, high = found["interval"]
            rates = ", ".join(
                f"{100 * found[f'tnr_at_{threshold}']:.1f} % at {threshold.replace('_', ' ')}"
                for threshold in result["thresholds"]
            )
            lines.append(
                f"validation only, {name}: AUROC {found['auroc']:.3f} [{low:.3f}, {high:.3f}], "
                f"found {rates}"
            )
    return "\n".join(lines).rstrip()


def chance_line(result: Mapping[str, Any]) -> str | None:
    """A warning that a detector is no better than chance on validation images, or None.

    Args:
        result: content of ``result.json``.
    """
    validation = result.get("validation", {})
    if not validation.get("chance"):
        return None
    low, high = (f"{value:.3f}" for value in validation["interval"])
    return (
        f"Not measurably better than chance on validation images: AUROC {validation['auroc']:.3f} "
        f"[{low}, {high}]. Its test results say nothing about generators."
    )


def threshold_name(threshold: str) -> str:
    """A threshold in words."""
    if threshold == "0.5":
        return "threshold 0.5, the paper's"
    if threshold == "oracle":
        return "oracle: the best threshold for each pair, chosen on the pair's own test images"
    rate = float(threshold.removeprefix("source_"))
    return f"threshold at {rate:.0%} FPR on validation real images"


def cell(metrics: Mapping[str, Any], name: str) -> str:
    """A metric and its interval in percent, or a dash if it is missing or undefined."""
    if metrics.get(name) is None:
        return "-"
    low, high = metrics[f"{name}_interval"]
    return f"{100 * metrics[name]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def audit_table(audited: Mapping[str, Any]) -> str:
    """Table of an audit, one line per check.

    Args:
        audited: content of ``audit.json``.
    """
    lines = [f"{'logistic model on a single trait':<50}{'n':>13}{'AUROC':>8}  verdict"]
    for check in audited["traits"]:
        title = f"{check['trait']}, {check['real']} / {check['generator']}"
        counts = f"{check['n_real']}+{check['n_generated']}"
        auroc = "-" if check["auroc"] is None else f"{check['auroc']:.3f}"
        lines.append(f"{title:<50}{counts:>13}{auroc:>8}  {check['verdict']}")
    lines += ["", f"{'images with a near-duplicate':<50}{'copies':>13}{'near':>8}  verdict"]
    for check in audited["repetitions"]:
        for source, copies, near in dict.fromkeys(
            zip(check["sources"], check["copies"], check["near_duplicates"], strict=True)
        ):
            title = f"{source}, among {' / '.join(dict.fromkeys(check['sources']))}"
            lines.append(f"{title:<50}{copies:>13}{near:>8}  {check['verdict']}")
    for check in audited["across_border"]:
        title = f"{check['source']}, training, of test images"
        lines.append(f"{title:<50}{'':>13}{check['near_duplicates']:>8}  {check['verdict']}")
    return "\n".join([*lines, "", *audited["warnings"]])


def quality_table(source: Mapping[str, Any]) -> str:
    """Quality of a generator's images, beside that of real images.

    Args:
        source: content of ``source.json``.
    """
    quality = source["quality"]
    distances, of_reals = quality["sliced_wasserstein"], quality["sliced_wasserstein_real"]
    rows = [
        (f"sliced Wasserstein distance x 1000, {level}", distance, (of_reals or {}).get(level))
        for level, distance in (distances or {}).items()
    ]
    alike = quality["ms_ssim"], quality["ms_ssim_real"]
    rows.append(("MS-SSIM of pairs (near 1: collapsed)", *alike))
    rows += [
        (f"AUROC of a logistic model on {what} (0.5: no shortcut)", auroc, None)
        for what, auroc in (quality["shortcuts"] or {}).items()
    ]
    lines = [f"{'measure':<66}{'generated':>10}{'real':>8}"]
    for name, *values in rows:
        generated, real = ("-" if value is None else f"{value:.3f}" for value in values)
        lines.append(f"{name:<66}{generated:>10}{real:>8}")
    for key, reason in quality.items():
        if key.endswith("_reason"):
            lines.append(f"not measured: {key.removesuffix('_reason')} ({reason})")
    return "\n".join(lines)
