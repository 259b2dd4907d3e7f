"""Walking the tree: an asyncio task that decides, a thread that makes the system calls.

Reading a folder blocks, on a network file system for long, so the loop never does it: the task
hands out folders and takes what was found in them, whichever can happen first.
"""

from __future__ import annotations

import os
import stat
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from .. import Channel, ReceiveSide, SendSide, SendView, select
from .skipped import Kind, Skipped

if TYPE_CHECKING:
    from ..processes import ProcessChannel

__all__ = ["Listing", "list_folders", "walk"]

ENTRIES = 256  # of one listing: a folder of a million files comes in slices


class Listing(NamedTuple):
    """A slice of what a folder holds, as paths."""

    files: list[bytes]
    folders: list[bytes]
    skipped: list[Skipped]
    last: bool  # of its folder


async def walk(
    root: bytes,
    is_folder: bool,
    folders: SendSide[bytes],
    listings: ReceiveSide[Listing],
    paths: Channel[bytes] | ProcessChannel[bytes],
    skipped: SendView[Skipped],
) -> None:
    """Send the path of every regular file below `root` to `paths`; then close `folders` and `paths`."""
    pending: list[bytes] = []
    if is_folder:
        pending.append(root)
    else:
        await paths.send(root)
    handed_out = 0
    while pending or handed_out:
        match await select(
            folders.send(pending[-1]) if pending else None,
            listings.receive() if handed_out else None,
        ):
            case 0, _:
                pending.pop()
                handed_out += 1
            case 1, listing:
                handed_out -= int(listing.last)
                pending += reversed(listing.folders)
                await skipped.send_all(listing.skipped)
                await paths.send_all(listing.files)
    folders.close()
    paths.close()


def list_folders(folders: ReceiveSide[bytes], listings: SendSide[Listing]) -> None:
    """The thread: read each of `folders`."""
    for folder in folders:
        found: list[Skipped] = []
        try:
            with os.scandir(folder) as entries:
                while part := list(islice(entries, ENTRIES)):
                    listings.send(_listing(part)).sync()
        except (FileNotFoundError, NotADirectoryError) as error:
            found = [Skipped(Kind.VANISHED, folder, error.strerror or "")]
        except OSError as error:
            found = [Skipped(Kind.UNREADABLE_FOLDER, folder, error.strerror or "")]
        listings.send(Listing([], [], found, True)).sync()


def _listing(entries: list[os.DirEntry[bytes]]) -> Listing:
    files: list[bytes] = []
    folders: list[bytes] = []
    skipped: list[Skipped] = []
    for entry in entries:
        try:
            if entry.is_symlink():
                skipped.append(_link(entry))
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                files.append(entry.path)
            else:
                skipped.append(Skipped(special(entry.stat(follow_symlinks=False)), entry.path))
        except FileNotFoundError as error:
            skipped.append(Skipped(Kind.VANISHED, entry.path, error.strerror or ""))
        except OSError as error:
            skipped.append(Skipped(Kind.UNREADABLE_FILE, entry.path, error.strerror or ""))
    return Listing(files, folders, skipped, False)


def _link(entry: os.DirEntry[bytes]) -> Skipped:
    try:
        os.stat(entry.path)
    except OSError as error:
        return Skipped(Kind.BROKEN_LINK, entry.path, error.strerror or "")
    return Skipped(Kind.LINK, entry.path)


def special(status: os.stat_result) -> Kind:
    """What something is that is no file, folder or link."""
    for test, kind in _SPECIAL:
        if test(status.st_mode):
            return kind
    return Kind.OTHER


_SPECIAL = (
    (stat.S_ISFIFO, Kind.FIFO),
    (stat.S_ISSOCK, Kind.SOCKET),
    (stat.S_ISCHR, Kind.DEVICE),
    (stat.S_ISBLK, Kind.DEVICE),
)
