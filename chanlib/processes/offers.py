"""What is said of descriptors on offer: the value that travels in a pickle, the messages, the errors.

One message each way and an acknowledgement, over SOCK_SEQPACKET: a message is there as a whole or not at all.

    claimer -> broker    REQUEST: what this is, number, nonce
    broker -> claimer    REPLY: verdict, how many descriptors come with it, errno
    claimer -> broker    TAKEN: I have them all

A peer is trusted if its effective uid is ours and it knows the nonce. `Offer.pid` serves messages only.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from typing import NamedTuple

__all__ = [
    "FAILED",
    "HERE",
    "MAGIC",
    "MOST",
    "NONCE",
    "OVER",
    "REFUSED",
    "REPLY",
    "REQUEST",
    "TAKEN",
    "HandoverError",
    "Offer",
    "alive",
    "cut",
    "gone",
    "over",
    "refused",
    "silent",
    "uid",
]

MOST = 16  # descriptors in one offer
NONCE = 32  # bytes
MAGIC = b"clb1"
REQUEST = struct.Struct(f"=4sQ{NONCE}s")
REPLY = struct.Struct("=BBi")
TAKEN = b"+"
HERE, OVER, REFUSED, FAILED = range(4)

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


class HandoverError(RuntimeError):
    """The descriptors of a pickled handle cannot be had: the message says why."""


class Offer(NamedTuple):
    """What `claim` needs; to be pickled. Whoever has it, and is the same user, can claim."""

    address: bytes
    number: int
    nonce: bytes
    pid: int

    def __repr__(self) -> str:  # it may get into a log, the nonce must not
        return f"<offer {self.number} of process {self.pid}>"


def alive(pid: int) -> bool:
    """Whether there is such a process, a zombie not counted. It may be another one by now."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError, AttributeError):  # it cannot be told
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return not poll.poll(0)
    finally:
        os.close(fd)


def gone(offer: Offer) -> HandoverError:
    return HandoverError(
        f"process {offer.pid}, which pickled this handle, has gone: it has to live until the handle is unpickled; "
        "let a process that lives longer make the handle, or send it through a channel and wait until it is received"
    )


def over(offer: Offer) -> HandoverError:
    return HandoverError(
        f"what process {offer.pid} pickled was claimed already, or has expired: a pickled handle stands for one "
        "clone, to be unpickled once and soon; pickle it once for each process"
    )


def refused(offer: Offer) -> HandoverError:
    return HandoverError(f"process {offer.pid} refuses: this is not an offer that it made")


def silent(offer: Offer, patience: float) -> HandoverError:
    return HandoverError(
        f"process {offer.pid}, which pickled this handle, has not answered within {patience:g} s: is it stopped?"
    )


def cut(offer: Offer) -> HandoverError:
    if not alive(offer.pid):
        return gone(offer)
    return HandoverError(f"process {offer.pid} refuses, or is about to end: it hung up without a word")


def uid(sock: socket.socket) -> int:
    """The effective uid of the peer when it connected, or began to listen."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])
