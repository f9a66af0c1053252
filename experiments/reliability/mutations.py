"""Mutation run: small faults planted in the package, one at a time, and whether its tests see them.

Each mutant is written into a throw-away copy of the tree, and the test files of its module run in
a process forked from one that has imported torch, so that a mutant costs its tests and not their
imports. Of the well-kept tools, cosmic-ray starts an interpreter for each mutant, and mutmut first
runs all tests: minutes for what takes seconds here.

Rows of ``mutations.csv`` that the current code still has are kept, so that an interrupted run goes
on, and so are the reasons written into it for mutants that change nothing.

    python experiments/reliability/mutations.py
    python experiments/reliability/mutations.py --only splits --count 50 --again
"""

import argparse
import ast
import compileall
import copy
import csv
import hashlib
import importlib
import os
import py_compile
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("mutations.csv")
COLUMNS = ("module", "line", "function", "was", "became", "number", "outcome", "seconds", "reason")

TESTS = {
    "forensics/preprocess/base.py": ["test_preprocess.py"],
    "forensics/preprocess/degradations.py": ["test_preprocess.py", "test_preprocess_handling.py"],
    "forensics/preprocess/handling.py": ["test_preprocess_handling.py", "test_preprocess.py"],
    "forensics/preprocess/jpeg.py": ["test_preprocess_jpeg.py"],
    "forensics/data/protocols.py": ["test_protocols.py", "test_splits.py"],
    "forensics/data/splits.py": ["test_splits.py", "test_protocols.py"],
    "forensics/data/datamodule.py": ["test_datamodule.py", "test_codec.py"],
    "forensics/evaluation/metrics.py": ["test_metrics.py"],
    "forensics/evaluation/intervals.py": ["test_metrics.py", "test_seeds.py"],
    "forensics/evaluation/calibration.py": ["test_calibration.py", "test_metrics.py"],
    "forensics/evaluation/seeds.py": ["test_seeds.py"],
    "forensics/reports/comparison.py": ["test_comparison.py", "test_report.py"],
    "forensics/reports/study_tables.py": ["test_study_tables.py", "test_report.py"],
    "forensics/scoring/scorer.py": ["test_scoring.py"],
    "forensics/scoring/predictor.py": ["test_scoring.py"],
    "forensics/training/checkpoints.py": ["test_checkpoints.py"],
    "forensics/training/detector_task.py": ["test_detector_task.py"],
}
"""Test files of each module: the one named after it, then those that say the same of it."""

IMPORTED = (
    "numpy", "scipy.stats", "scipy.optimize", "sklearn.linear_model", "sklearn.metrics", "torch",
    "torchvision", "pytorch_lightning", "torchmetrics", "pyarrow.parquet", "matplotlib",
    "PIL.Image", "safetensors.torch", "jinja2",
)  # fmt: skip
"""What the tests import besides the package, imported once."""

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Mod: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
_BROKEN = 70  # exit code of a process in which pytest itself raised
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}


class Mutant(NamedTuple):
    """One fault.

    Attributes:
        module: file of the package, relative to the root.
        function: qualified name of the function or class around it, "" for the module.
        was: the code before.
        became: the code after.
        number: number of the same change in the same function, from 0.
    """

    module: str
    function: str
    was: str
    became: str
    number: str


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What one node could mistakenly be."""

    def changed(**fields: object) -> ast.AST:
        one = copy.copy(node)
        for name, value in fields.items():
            setattr(one, name, value)
        return one

    match node:
        case ast.Compare(ops=[operator, *rest]):
            yield changed(ops=[COMPARED[type(operator)](), *rest])
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in COMPUTED:
            yield changed(op=COMPUTED[type(op)]())
        case ast.BoolOp(op=op):
            yield changed(op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.If(test=test) | ast.IfExp(test=test):
            yield changed(test=ast.UnaryOp(ast.Not(), test))
        case ast.Constant(value=bool(value)):
            yield changed(value=not value)
        case ast.Constant(value=int(value)):
            yield changed(value=value + 1)
        case ast.Constant(value=float(value)):
            yield changed(value=2 * value + 1)
        case ast.Name(id=name) if name in NAMES:
            yield changed(id=NAMES[name])
        case ast.Attribute(attr=name) if name in NAMES:
            yield changed(attr=NAMES[name])
        case ast.Call(keywords=keywords):
            for number, one in enumerate(keywords):
                if one.arg not in (None, "strict"):
                    yield changed(keywords=keywords[:number] + keywords[number + 1 :])
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue() | ast.Break():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()


def mutants(module: str) -> Iterator[tuple[Mutant, int, ast.Module]]:
    """All faults of a module, with line and code, which has the fault until the next one."""
    tree = ast.parse((ROOT / module).read_text())
    seen: Counter[tuple[str, ...]] = Counter()

    def visit(node: ast.AST, function: str) -> Iterator[tuple[Mutant, int, ast.Module]]:
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list"):
                continue
            children = value if isinstance(value, list) else [value]
            for place, child in enumerate(children):
                if not isinstance(child, ast.AST) or _is_left_alone(child):
                    continue
                for other in replacements(child):
                    change = function, _code(child), _code(other)
                    for fault in (other, child):
                        if isinstance(value, list):
                            value[place] = fault
                        else:
                            setattr(node, field, fault)
                        if fault is other:
                            yield (
                                Mutant(module, *change, str(seen[change])),
                                cast(Any, child).lineno,
                                tree,
                            )
                    seen[change] += 1
                is_named = isinstance(child, ast.FunctionDef | ast.ClassDef)
                inner = f"{function}.{cast(Any, child).name}".strip(".") if is_named else function
                yield from visit(child, inner)

    return visit(tree, "")


def _is_left_alone(node: ast.AST) -> bool:
    """Whether it is a message, whose words no test asserts, or zip's check of our own lists."""
    if isinstance(node, ast.JoinedStr):
        return True
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return True
    return isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log.")


def _code(node: ast.AST) -> str:
    """The code of a node in one line, without the body of an ``if``."""
    code = f"if {ast.unparse(node.test)}" if isinstance(node, ast.If) else ast.unparse(node)
    return " ".join(code.split())


def chosen(every: Iterable[Mutant], count: int) -> list[Mutant]:
    """A sample of a module's faults, the same while other code changes."""
    return sorted(every, key=lambda one: hashlib.sha256("\0".join(one).encode()).digest())[:count]


class Copy:
    """A throw-away copy of the tree, and its tests.

    Args:
        folder: the folder to copy to.

    Attributes:
        log: what the last tests printed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.log = folder, folder.with_suffix(".log")
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "outputs", "experiments")
        shutil.copytree(ROOT, folder, ignore=ignored, symlinks=True)
        # Checked by the source's hash: a mutant may be as long and as old as the module.
        checked = py_compile.PycInvalidationMode.CHECKED_HASH
        for package in ("forensics", "tests"):
            compileall.compile_dir(folder / package, quiet=1, invalidation_mode=checked)

    def run(self, tests: list[str], limit: float) -> str:
        """Run test files: ``survived`` if they pass, ``killed`` if not, or ``timeout``."""
        process = os.fork()
        if process == 0:
            self._test(tests)
        end = time.monotonic() + limit
        while time.monotonic() < end:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                if code == _BROKEN:
                    sys.exit(f"The tests did not run:\n{self.log.read_text()}")
                return "killed" if code else "survived"
            time.sleep(0.05)
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return "timeout"

    def _test(self, tests: list[str]) -> None:
        """Run pytest and end this process."""
        code = _BROKEN
        try:
            os.setsid()
            os.chdir(self._folder)
            log = os.open(self.log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(log, stream)
            sys.path.insert(0, str(self._folder))
            sys.dont_write_bytecode = True
            os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(self._folder)}
            files = [str(self._folder / "tests" / name) for name in tests]
            # Plain asserts, because what is already imported cannot be rewritten.
            options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--assert=plain"]
            code = int(pytest.main([*options, *files]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def fate(self, mutant: Mutant, tests: list[str], limit: float) -> str:
        """Run test files on one fault."""
        path = self._folder / mutant.module
        whole = path.read_text()
        path.write_text(next(ast.unparse(t) for m, _, t in mutants(mutant.module) if m == mutant))
        try:
            return self.run(tests, limit)
        finally:
            path.write_text(whole)


Rows = dict[Mutant, dict[str, str]]


def _read() -> Rows:
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="") as file:
        return {Mutant(*(row[key] for key in Mutant._fields)): row for row in csv.DictReader(file)}


def _write(rows: Rows) -> None:
    order = list(TESTS)
    unfinished = TABLE.with_suffix(".unfinished")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            sorted(rows.values(), key=lambda row: (order.index(row["module"]), int(row["line"])))
        )
    unfinished.replace(TABLE)


def main() -> None:
    """Run the mutants and print the score."""
    parser = argparse.ArgumentParser(description="Mutation run.")
    parser.add_argument("--count", type=int, default=10, help="mutants of each module")
    parser.add_argument("--only", help="modules whose names contain this")
    parser.add_argument("--again", action="store_true", help="run survivors and time-outs again")
    given = parser.parse_args()
    for name in IMPORTED:
        importlib.import_module(name)
    rows = _read()
    sample: set[Mutant] = set()
    with tempfile.TemporaryDirectory() as temporary:
        tree = Copy(Path(temporary) / "tree")
        for module, tests in TESTS.items():
            if (given.only or "") not in module:
                continue
            lines = {mutant: line for mutant, line, _ in mutants(module)}
            for gone in {one for one in rows if one.module == module} - lines.keys():
                del rows[gone]
            of_module = chosen(lines, given.count)
            sample |= set(of_module)
            limit = 0.0
            for mutant in of_module:
                line = lines[mutant]
                row = rows.setdefault(mutant, mutant._asdict() | {"outcome": "", "reason": ""})
                row["line"] = str(line)
                repeated = given.again and not row["reason"] and row["outcome"] != "killed"
                if row["outcome"] and not repeated:
                    continue
                begun = time.monotonic()
                if not limit:
                    if tree.run(tests, 900) != "survived":
                        sys.exit(tree.log.read_text())
                    limit = 60 + 4 * (time.monotonic() - begun)
                    print(f"{module}: {' '.join(tests)}, {limit / 4 - 15:.0f} s", flush=True)
                    begun = time.monotonic()
                row["outcome"] = tree.fate(mutant, tests, limit)
                row["seconds"] = f"{time.monotonic() - begun:.1f}"
                print(f"{module}:{line} {mutant.was} -> {mutant.became}: {row['outcome']}, "
                      f"{row['seconds']} s", flush=True)  # fmt: skip
                _write({one: row for one, row in rows.items() if row["outcome"]})
    _write(rows)
    _score([rows[mutant] for mutant in sample])


def _score(rows: list[dict[str, str]]) -> None:
    """Print counts by module and in all; a time-out counts as killed."""
    total: Counter[str] = Counter()
    for module in TESTS:
        of = Counter(
            "equivalent" if row["reason"] else row["outcome"]
            for row in rows
            if row["module"] == module
        )
        total += of
        if of:
            print(module, dict(of))
    killed = total["killed"] + total["timeout"]
    counted = killed + total["survived"]
    print(f"{killed} of {counted} killed, {100 * killed / max(counted, 1):.1f} %, "
          f"{total['equivalent']} equivalent")  # fmt: skip


if __name__ == "__main__":
    main()
