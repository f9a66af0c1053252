"""Running an entry point: errors as sentences, exit codes, jobs of a sweep."""

import difflib
import logging
import multiprocessing
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from forensics import files, runs
from forensics.errors import UserError
from forensics.launch.arguments import as_typed, quoted
from forensics.launch.help import program

log = logging.getLogger(__name__)

INTERRUPTED = 130
"""Exit code after Ctrl-C, as in shells."""


def run(
    main: Callable[[], Any],
    register: Callable[[Sequence[str]], None],
    at_end: Callable[[], None] = lambda: None,
) -> None:
    """Run a Hydra entry point and end the process.

    An error that the user can fix is printed as one sentence, with a traceback only if
    ``hydra.verbose=true``, and gives exit code 1. Any other error is a bug and keeps its traceback.

    Args:
        main: the entry point.
        register: registers the settings' types with Hydra, given the arguments.
        at_end: called after the entry point, even if it failed.
    """
    from forensics.launch.resume import resumed_arguments  # imports all that trains

    # The environment's rank may be that of a job which only contains this process.
    runs.take_rank(0)
    # A log file that cannot be written is no reason for a traceback.
    logging.raiseExceptions = False
    # Makes Hydra raise its own errors rather than print them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Handled like Ctrl-C: schedulers and `kill` send SIGTERM first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def arguments_and_main() -> None:
        sys.argv[1:] = resumed_arguments(as_typed(sys.argv[1:]))
        register(sys.argv[1:])
        main()

    code = max(_exit_code(arguments_and_main), _exit_code(at_end))
    if code:
        sys.exit(code)


def _exit_code(work: Callable[[], None]) -> int:
    """Run a function and print its errors; returns the exit code."""
    try:
        work()
    except KeyboardInterrupt as interrupt:
        _print(str(interrupt) or "Interrupted: nothing is lost, repeat the command.")
        return INTERRUPTED
    except (PastHydra, Exception) as raised:
        error = raised.error if isinstance(raised, PastHydra) else raised
        if not isinstance(error, UserError | HydraException | OmegaConfBaseException | OSError):
            raise error from error.__cause__  # a bug
        if "hydra.verbose=true" in sys.argv:
            traceback.print_exc()
        _print(sentence(error))
        return 1
    return 0


class PastHydra(BaseException):
    """Carries an error past Hydra, which would print additional text or suppress it."""

    def __init__(self, error: Exception) -> None:
        self.error = error


@contextmanager
def past_hydra() -> Iterator[None]:
    """Context for a callback, whose errors Hydra would turn into warnings."""
    try:
        yield
    except Exception as error:
        raise PastHydra(error) from error


def job(work: Callable[[], None]) -> None:
    """Run a Hydra job, with errors reported as in `run`.

    A failed single run ends at once. In a sweep the other jobs continue, so the error is logged
    immediately, and Hydra raises the first error at the end. If a launcher runs several jobs at
    once, each runs in a process of its own: joblib would end all of them when one is killed.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        if is_sweep() and not launches_in_process():
            _do_apart(work, folder)
        else:
            work()
    except Exception as error:
        if is_sweep():
            log.error("%s failed: %s", runs.shown(folder), sentence(error))
            raise
        # Remove the folder that Hydra created, if it is empty.
        with suppress(OSError):
            folder.rmdir()
        raise PastHydra(error) from error


def _do_apart(work: Callable[[], None], folder: Path) -> None:
    """Run a job in a forked process, which shares imported modules, and wait for its end.

    Raises:
        UserError: if the job failed or was killed; the latter is recorded in ``failed.json``.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def do() -> None:
        try:
            work()
        except KeyboardInterrupt as interrupt:
            sender.send(str(interrupt))
            sys.exit(INTERRUPTED)
        except Exception as error:
            sender.send(sentence(error))
            sys.exit(1)

    process = context.Process(target=do)
    process.start()
    sender.close()
    process.join()
    if process.exitcode == 0:
        return
    try:
        reason = str(receiver.recv())
    except EOFError:
        code = process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        reason = (
            f"The job's process was ended by {how}: unless a user did that, it ran out of memory; "
            "repeat the command."
        )
        files.write_json(folder / runs.FAILED, {"error": reason})
    raise UserError(reason)


def is_sweep() -> bool:
    """Whether this job is part of a sweep."""
    return HydraConfig.get().mode is RunMode.MULTIRUN


def launches_in_process() -> bool:
    """Whether the jobs of this sweep run one after another, in this process."""
    return bool(HydraConfig.get().launcher._target_.endswith("BasicLauncher"))


@contextmanager
def claimed(folder: Path, composed: DictConfig, *, resuming: bool) -> Iterator[None]:
    """Context for the work of a run, in a folder that is its own; see `runs.claimed`.

    An error is recorded in ``failed.json``, unless the folder still has a complete result. An
    interruption is reported with the command to resume.
    """
    first = runs.on_first_device()
    own = runs.claimed(folder, HydraConfig.get(), composed, resuming=resuming)
    with own if first else nullcontext():
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError) and error.errno and error.filename is None:
                error.filename = str(folder)  # of TensorBoard's files, on a full disk
            if first and not (folder / runs.RESULT).exists():
                # The disk may be the cause of the failure.
                with suppress(OSError):
                    files.write_json(folder / runs.FAILED, {"error": sentence(error)})
            raise
        # Lightning turns the former into the latter.
        except (KeyboardInterrupt, SystemExit) as stop:
            how = f"{program()} resume={runs.shown(folder)}"
            if is_sweep():
                how = f"the same command and hydra.sweep.dir={HydraConfig.get().sweep.dir}"
            raise KeyboardInterrupt(f"Stopped. Resume with: {how}") from stop


def _print(text: str) -> None:
    if runs.on_first_device():
        print(text, file=sys.stderr)


def sentence(error: Exception) -> str:
    """An error as one sentence: the setting, file or folder, and what to do."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option} is unknown: choose one of {', '.join(sorted(error.options))}."
    if isinstance(error, OverrideParseException):
        given, equals, value = str(error.override).partition("=")
        how = shlex.quote(f"{given}={quoted(value)}") if equals else "KEY=VALUE"
        return f"Cannot read {error.override!r}: write {how}."
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; fix that and repeat the command."
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = getattr(cause, "full_key", None)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and key:
        close = _nearest_key(str(cause.key), cause.parent_node)
        guess = f"did you mean {close}?" if close else f"{program()} --cfg job lists all."
        return f"There is no setting {key}: {guess}"
    if isinstance(cause, ValidationError) and key and "not a ListConfig" in str(cause):
        return f"{key}: write a list, {key}=[A] or {key}=[A,B]."
    if isinstance(cause, OmegaConfBaseException) and "not support deletion" in str(cause):
        return f"{key} cannot be removed: leave out ~{key}."
    if isinstance(cause, OmegaConfBaseException) and key:
        return f"{key}: {str(cause).splitlines()[0].rstrip('.')}."
    if isinstance(error, HydraException) and str(error).startswith("Ambiguous value"):
        given = str(error).split("'")[1]
        key, _, value = given.partition("=")
        text = shlex.quote(f"{key}={quoted(value)}")
        return (
            f"{given} has several values: add -m for a sweep; a list is KEY=[A,B], a text {text}."
        )
    if isinstance(error, HydraException) and "No match in the defaults list" in str(error):
        group = str(error).split("'")[1]
        return f"There is no group {group}: {program()} --help lists all."
    if isinstance(error, UserError | HydraException):
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {error}"


def _nearest_key(key: str, node: Any) -> str | None:  # noqa: ANN401
    """The likely intended setting: the same name below a group, or a similar spelling."""
    names = [str(name) for name in node or ()]
    for name in names:
        inner = node._get_node(name)
        if isinstance(inner, DictConfig) and key in (inner if not inner._is_none() else ()):
            return f"{name}.{key}"
    return next(iter(difflib.get_close_matches(key, names, n=1)), None)


def refuse_devices_in_sweep(devices: int) -> None:
    """Refuse several devices if Hydra runs a sweep's jobs in this process.

    Raises:
        UserError: in that case, since each device's process would start the sweep again.
    """
    if is_sweep() and launches_in_process() and devices > 1:
        raise UserError(
            f"{devices} devices inside a sweep would start the sweep again on every device: "
            "leave out --multirun, or use one device."
        )
