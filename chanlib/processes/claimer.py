"""The claimer's side of a handover: ask the broker of another process for what it has on offer.

Every wait is bounded: by `patience` seconds altogether. The nonce is told to nobody but a listener of our own user.
What has arrived is closed again in every case but one: all of it is there and the broker has been told so.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import time

from .descriptors import close_all
from .offers import (
    FAILED,
    HERE,
    MOST,
    OVER,
    REPLY,
    TAKEN,
    HandoverError,
    Offer,
    alive,
    cut,
    gone,
    over,
    refused,
    silent,
    uid,
)

__all__ = ["ask"]


def ask(offer: Offer, request: bytes, patience: float) -> list[int]:
    end = time.monotonic() + patience
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        try:
            _connect(sock, offer, end)
            if uid(sock) != os.geteuid():
                raise HandoverError(
                    f"process {offer.pid}, which pickled this handle, has gone, or is another user's: "
                    "what listens at its address is not ours"
                )
            sock.send(request)
            return _receive(sock, offer, end)
        except TimeoutError as error:
            raise silent(offer, patience) from error
        except (BrokenPipeError, ConnectionResetError) as error:
            raise cut(offer) from error
        finally:
            try:
                sock.shutdown(socket.SHUT_RDWR)  # a child forked meanwhile by another thread has a copy of it
            except OSError:
                pass


def _connect(sock: socket.socket, offer: Offer, end: float) -> None:
    sock.setblocking(False)
    while True:
        try:
            sock.connect(offer.address)
        except BlockingIOError:  # the queue of those to be accepted is full, and cannot be waited for in bounded time
            if time.monotonic() >= end:
                raise TimeoutError from None
            time.sleep(0.002)
        except ConnectionRefusedError as error:
            raise (over(offer) if alive(offer.pid) else gone(offer)) from error
        else:
            sock.settimeout(max(0.001, end - time.monotonic()))
            return


def _receive(sock: socket.socket, offer: Offer, end: float) -> list[int]:
    fds = array.array("i")
    space = socket.CMSG_SPACE(MOST * fds.itemsize)
    message, ancillary, flags, _ = sock.recvmsg(REPLY.size, space, socket.MSG_CMSG_CLOEXEC)
    try:
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if len(message) != REPLY.size:
            raise cut(offer)
        verdict, count, code = REPLY.unpack(message)
        if verdict == OVER:
            raise over(offer)
        if verdict == FAILED:
            raise OSError(code, f"process {offer.pid} could not hand over its descriptors: {os.strerror(code)}")
        if verdict != HERE:
            raise refused(offer)
        if flags & socket.MSG_CTRUNC or len(fds) != count:
            raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}: {len(fds)} of {count} descriptors arrived")
        sock.settimeout(max(0.001, end - time.monotonic()))
        sock.send(TAKEN)
    except BaseException:
        close_all(fds)
        raise
    return fds.tolist()
