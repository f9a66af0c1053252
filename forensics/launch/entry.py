"""Running an entry point: errors as sentences, exit codes, jobs of a sweep."""

import difflib
import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
)

from forensics import files, runs
from forensics.errors import UserError
from forensics.launch.resume import resumed_arguments

log = logging.getLogger(__name__)

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def run(
    main: Callable[[], Any],
    register: Callable[[Sequence[str]], None],
    at_end: Callable[[], None] = lambda: None,
) -> None:
    """Run a Hydra entry point and end the process.

    What a user can mend is printed as one sentence, with a traceback only if
    ``hydra.verbose=true``; the exit code is then 1. Anything else is our own mistake and keeps
    its traceback.

    Args:
        main: the entry point.
        register: takes the arguments and tells Hydra the settings' types.
        at_end: what follows it, however it ended.
    """
    # Lets Hydra's own errors come here rather than be printed and swallowed.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # As Ctrl-C: what schedulers and `kill` send first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def arguments_and_main() -> None:
        sys.argv[1:] = resumed_arguments(sys.argv[1:])
        register(sys.argv[1:])
        main()

    code = max(_exit_code(arguments_and_main), _exit_code(at_end))
    if code:
        sys.exit(code)


def _exit_code(work: Callable[[], None]) -> int:
    """Do something and tell of its errors."""
    try:
        work()
    except KeyboardInterrupt as interrupt:
        _print(str(interrupt) or "Interrupted: nothing is lost, run the same command again.")
        return INTERRUPTED
    except (PastHydra, Exception) as raised:
        error = raised.error if isinstance(raised, PastHydra) else raised
        if not isinstance(error, UserError | HydraException | OmegaConfBaseException | OSError):
            raise error from error.__cause__  # a mistake of ours
        if "hydra.verbose=true" in sys.argv:
            traceback.print_exc()
        _print(sentence(error))
        return 1
    return 0


class PastHydra(BaseException):
    """Carries an error past Hydra, which would print words of its own before it, or swallow it."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def job(work: Callable[[], None]) -> None:
    """Do a job of Hydra's, telling of its errors as `run` says.

    A single run ends at once. In a sweep the other jobs go on, so the error is logged where it
    happens, and Hydra raises the first one at the end. Where a launcher runs several jobs at once,
    each is done in a process of its own: joblib would end all of them when one is killed.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        if is_sweep() and not _launches_in_process():
            _do_apart(work, folder)
        else:
            work()
    except Exception as error:
        if is_sweep():
            log.error("%s failed: %s", runs.shown(folder), sentence(error))
            raise
        # The folder that Hydra made for it; not one with anything in it.
        with suppress(OSError):
            folder.rmdir()
        raise PastHydra(error) from error


def _do_apart(work: Callable[[], None], folder: Path) -> None:
    """Do a job in a process that shares what this one has imported, and wait for its end.

    Raises:
        UserError: if the job failed or was killed, which is then left in ``failed.json``.
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
            f"The job's process was ended by {how}: if nobody did that, it was out of memory; "
            "run the same command again."
        )
        files.write_json(folder / runs.FAILED, {"error": reason})
    raise UserError(reason)


def is_sweep() -> bool:
    """Whether this job is one of a sweep's."""
    return HydraConfig.get().mode is RunMode.MULTIRUN


def _launches_in_process() -> bool:
    return bool(HydraConfig.get().launcher._target_.endswith("BasicLauncher"))


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Mark a block as work of a run whose folder `runs.begin` has claimed.

    If it fails, ``failed.json`` is left there, unless a complete result still stands. If it is
    stopped, it is said how to resume.
    """
    try:
        yield
    except Exception as error:
        if not (folder / runs.RESULT).exists():
            # The disk may be what failed.
            with suppress(OSError):
                files.write_json(folder / runs.FAILED, {"error": sentence(error)})
        raise
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning makes the latter of the former
        how = f"python {_program()} resume={runs.shown(folder)}"
        if is_sweep():
            how = f"the same command and hydra.sweep.dir={HydraConfig.get().sweep.dir}"
        raise KeyboardInterrupt(f"Stopped. Resume with: {how}") from stop


def _program() -> str:
    return Path(sys.argv[0]).name


def _print(text: str) -> None:
    if runs.on_first_device():
        print(text, file=sys.stderr)


def sentence(error: Exception) -> str:
    """An error as one sentence: the setting, file or folder, and what to do."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option} is no choice: take one of {', '.join(sorted(error.options))}."
    if isinstance(error, OverrideParseException):
        return f"Cannot read {error.override!r}: write it as KEY=VALUE, odd values in quotes."
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; mend that and run the same command again."
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = getattr(cause, "full_key", None)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and key:
        close = _nearest_key(str(cause.key), cause.parent_node)
        guess = f"did you mean {close}?" if close else f"{_program()} --cfg job shows all."
        return f"There is no setting {key}: {guess}"
    if isinstance(cause, OmegaConfBaseException) and key:
        return f"{key}: {str(cause).splitlines()[0].rstrip('.')}."
    if isinstance(error, HydraException) and str(error).startswith("Ambiguous value"):
        given = str(error).split("'")[1]
        return f"{given} has several values: add -m for a job with each; a list is KEY=[A,B]."
    if isinstance(error, HydraException) and "No match in the defaults list" in str(error):
        group = str(error).split("'")[1]
        return f"There is no group {group}: {_program()} --help shows all."
    if isinstance(error, UserError | HydraException):
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {error}"


def _nearest_key(key: str, node: Any) -> str | None:  # noqa: ANN401
    """The setting most like an unknown one: of the same name below a group, or spelled alike."""
    names = [str(name) for name in node or ()]
    for name in names:
        inner = node._get_node(name)
        if isinstance(inner, DictConfig) and key in (inner if not inner._is_none() else ()):
            return f"{name}.{key}"
    return next(iter(difflib.get_close_matches(key, names, n=1)), None)


def refuse_devices_in_sweep(devices: int) -> None:
    """Refuse several devices where Hydra runs a sweep's jobs in this process.

    Raises:
        UserError: then; each device's process would start the sweep again.
    """
    if is_sweep() and _launches_in_process() and devices > 1:
        raise UserError(
            f"trainer.devices={devices} inside a sweep would start the sweep again on every "
            "device: leave out --multirun, or take one device."
        )
