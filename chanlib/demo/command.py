"""The command: checks its arguments before any work, runs the network, and says how it ended."""

from __future__ import annotations

import os
import stat
import sys
import time
from typing import TYPE_CHECKING, cast

from .. import CancelScope, EndOfChannel, TaskCancelled, TaskGroup, WorkerDied, every, select
from .interrupts import Interrupts
from .output import NotWritten, Output, open_output
from .skipped import printable

if TYPE_CHECKING:
    from .network import Network
    from .progress import Progress

__all__ = ["BadUsage", "run"]

OK, FAILED = 0, 1


class BadUsage(Exception):
    """The arguments do not make a run; nothing has been done."""


def run(path: bytes, file: bytes | None, processes: int) -> int:
    """Hash below `path`, in so many `processes` (0: in threads); the lines go to `file`, or to stdout.

    The result is the exit code.
    """
    with Interrupts() as interrupts:
        is_folder = _check_path(path)
        if processes and os.name != "posix":
            raise BadUsage("argument --processes: not on this system, which is no POSIX system")
        try:
            from .network import Network
        except ImportError as error:
            if (error.name or "").partition(".")[0] != "trio":
                raise
            raise BadUsage(
                "one stage of the demo lives in trio, which is not installed: pip install 'chanlib[demo]'"
            ) from error
        output = _open(path, file)
        interrupts.on_abandon(output.discard)
        try:
            network = Network(path, is_folder, output, processes)
            started = time.monotonic()
            progress, failure = _perform(network, interrupts)
            seconds = time.monotonic() - started
            return _conclude(network, output, interrupts, progress, failure, seconds)
        finally:
            output.discard()


def _check_path(path: bytes) -> bool:
    """Whether it is a folder."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise BadUsage(f"argument PATH: {printable(path)!r}: {error.strerror}") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise BadUsage(f"argument PATH: {printable(path)!r} is neither a folder nor a regular file")
    return stat.S_ISDIR(mode)


def _open(path: bytes, file: bytes | None) -> Output:
    if file is None:
        if sys.stdout is None:
            raise BadUsage("stdout is closed; give a file: --output FILE")
        return open_output(None, sys.stdout.fileno(), "stdout")
    name = f"argument --output: {printable(file)!r}"
    if not os.path.basename(file):
        raise BadUsage(f"{name} does not name a file")
    try:
        if os.path.exists(file) and os.path.samefile(path, file):
            raise BadUsage(f"{name} is PATH itself")
        return open_output(file, -1, printable(file))
    except OSError as error:
        raise BadUsage(f"{name} cannot be written to: {error.strerror}") from error


def _perform(network: Network, interrupts: Interrupts) -> tuple[Progress, NotWritten | WorkerDied | None]:
    """Run `network` to its end. The group owns every stage, and an interrupt cancels it."""
    from .progress import choose_progress

    progress = choose_progress()
    interrupts.on_abandon(progress.abandon)
    try:
        # Who watches is shielded: a read that hangs may hold up the end of a network that is cancelled.
        with TaskGroup(name="demo") as group, CancelScope(shield=True):
            _watch(group, network, interrupts, progress)
    except BaseExceptionGroup as errors:
        # Who talks to a process that has died fails as well: its death is the reason.
        error = _first(errors.subgroup(WorkerDied) or errors)
        if not isinstance(error, NotWritten | WorkerDied):
            raise error from None
        return progress, error
    return progress, None


def _first(error: BaseException) -> BaseException:
    """A bug shows as the error it is: those of other stages are most likely the same."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    return _first(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])


def _watch(group: TaskGroup, network: Network, interrupts: Interrupts, progress: Progress) -> None:
    """Start the stages and show how far they are until all have ended."""
    ended = group.as_completed()
    told = False
    try:
        network.start(group)
        ticker = every(progress.period)
        while True:
            match select(ended, None if told else interrupts.arrived, ticker).sync():
                case 0, stage:
                    if stage is network.collect:  # all is counted: now the lines may have the terminal
                        progress.end(network.snapshot())
                        network.may_write.set()
                case 1, _:
                    told = True
                    group.cancel(str(interrupts))
                case _:
                    if not network.collect.done:
                        progress.show(network.snapshot())
    except EndOfChannel:
        pass  # no stage is left
    except BaseException:
        progress.abandon()
        raise


def _conclude(
    network: Network,
    output: Output,
    interrupts: Interrupts,
    progress: Progress,
    failure: NotWritten | WorkerDied | None,
    seconds: float,
) -> int:
    """Say how it ended."""
    from .progress import in_bytes, say

    findings = network.findings()
    code = FAILED if findings.failed else OK
    if failure is not None:
        code = failure.exit_code if isinstance(failure, NotWritten) else FAILED
        ended = f"{failure}; {output.kept()}"
    else:
        try:
            ended = f"complete: {network.write.sync():,} lines in {output.name}"
        except TaskCancelled:
            ended = f"{interrupts}; {output.kept()}"
    if findings.counts:
        say("left out:")
        for text in findings.report():
            say(text)
    now = network.snapshot()
    progress.summary(
        [
            ("files hashed", f"{now.files:,}"),
            (
                "bytes read",
                f"{now.bytes:,}" + (f" ({in_bytes(now.bytes)})" if now.bytes > 999 else ""),
            ),
            ("seconds", f"{seconds:.2f}"),
            ("left out", f"{findings.counts.total():,}"),
            ("busiest channel", network.busiest()),
            ("result", ended),
        ]
    )
    return interrupts.exit_code if interrupts.signum else code
