"""`python -m chanlib`: what this is, and the demo.

What takes time to import is imported where it is used: a Ctrl-C that comes before the last lines of
this file are reached ends in a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Sequence

DEMO = """\
Hash every regular file below PATH and write what `sha256sum` would write, sorted by the bytes of
the path, as `find PATH -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum` does. The work is
done by one network of bounded channels whose stages live in asyncio, trio and plain threads, and,
with --processes, in processes.
"""

DETAILS = """\
Symbolic links are not followed, neither to files nor to folders, as `find -type f` does; only PATH
itself is (as `find -H`). Broken links, FIFOs, sockets, devices, and what cannot be read, vanishes
or shrinks meanwhile, are left out, counted, and listed on stderr at the end.

The file that the lines go to is left out too, by whichever name it is met: FILE, or a file that
stdout was redirected to. FILE is replaced in one step at the very end; devices are written to
directly.

Ctrl-C and SIGTERM end a run cleanly: no lines are written, FILE stays as it was, and the summary
says how far it came. A second Ctrl-C does not wait for a read that hangs.

With --processes a worker that is killed ends the run: no lines are written.

Exit code: 0 all regular files were hashed; 1 some file or folder could not be read, the lines could
not be written, or a worker was killed; 2 bad usage, nothing was done; 130 Ctrl-C; 143 SIGTERM; 141
stdout was closed by its reader.
"""

MOST = 64  # processes


def about() -> str:
    """What this is, in one line."""
    from importlib.metadata import PackageNotFoundError, version

    from ._core.engine import NAME

    try:
        number = version("chanlib")
    except PackageNotFoundError:
        number = "from a source tree that is not installed"
    return f"chanlib {number}, engine {NAME}"


def parser() -> tuple[ArgumentParser, ArgumentParser]:
    """The parser of the command line, and that of `demo`, for errors about its arguments."""
    import argparse

    top = argparse.ArgumentParser(
        "python -m chanlib",
        description="Channels, select, events, futures and timers over asyncio, trio, threads and processes.",
    )
    top.add_argument("--version", action="store_true", help="show what this is, and end")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="hash every file below a folder, through asyncio, trio, threads and processes at once",
        description=DEMO,
        epilog=DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument("path", metavar="PATH", help="a folder, or one regular file")
    demo.add_argument("--output", metavar="FILE", help="write the lines to FILE, not to stdout")
    demo.add_argument(
        "--processes",
        metavar="N",
        nargs="?",
        type=count,
        const=min(os.cpu_count() or 1, MOST),
        default=0,
        help="hash in N processes, as many as there are processors if N is left out, not in threads",
    )
    return top, demo


def count(text: str) -> int:
    """How many processes."""
    from argparse import ArgumentTypeError

    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST):
        raise ArgumentTypeError(f"N must be a number from 1 to {MOST}, not {text!r} (without N, PATH comes first)")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    top, demo = parser()
    chosen = top.parse_args(arguments)
    if chosen.version or chosen.command is None:
        print(about())
        if not chosen.version:
            print()
            top.print_help()
        return 0
    from .demo.command import BadUsage, run

    file = None if chosen.output is None else os.fsencode(chosen.output)
    try:
        return run(os.fsencode(chosen.path), file, chosen.processes)
    except BadUsage as error:
        demo.error(str(error))


def _leave(signum: int, frame: object) -> None:
    os._exit(128 + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _leave)  # before a run there is nothing to clean up
    code = main()
    for late in (signal.SIGINT, signal.SIGTERM):
        signal.signal(late, signal.SIG_IGN)
    sys.exit(code)
