"""The text format of GNU `sha256sum`: digest, two blanks, the path.

A path with a backslash, a newline or a carriage return has these escaped, and a backslash before
the digest says so. Source: the output of coreutils 9.1, with which the tests compare.
"""

from __future__ import annotations

__all__ = ["line", "record"]

_ESCAPES = ((b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\r", b"\\r"))  # the backslash first


def record(path: bytes, digest: bytes) -> bytes:
    """What a run remembers of one file: one object for each. Records sort as their paths do.

    No path holds a NUL, and nothing sorts before it: a path comes before its continuations.
    """
    return b"%b\0%b" % (path, digest)


def line(entry: bytes) -> bytes:
    """The line, newline included, of a `record`."""
    path, _, digest = entry.partition(b"\0")
    escaped = path
    for plain, escape in _ESCAPES:
        escaped = escaped.replace(plain, escape)
    mark = b"\\" if escaped != path else b""
    return b"%b%b  %b\n" % (mark, digest.hex().encode(), escaped)
