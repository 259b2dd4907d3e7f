"""Channels against SendSide and ReceiveSide. Read by mypy and pyright, never run.

Parameters, not local variables: checkers narrow a variable to what was assigned to it.
"""

from typing import assert_type

from chanlib import Channel, ReceiveSide, SendSide


def wants_sender(side: SendSide[int]) -> None: ...
def wants_bool_sender(side: SendSide[bool]) -> None: ...
def wants_object_sender(side: SendSide[object]) -> None: ...
def wants_receiver(side: ReceiveSide[int]) -> None: ...
def wants_object_receiver(side: ReceiveSide[object]) -> None: ...
def wants_bool_receiver(side: ReceiveSide[bool]) -> None: ...
def wants_channel(channel: Channel[int]) -> None: ...


def a_channel_is_both_sides(ch: Channel[int]) -> None:
    wants_sender(ch)
    wants_receiver(ch)
    wants_sender(ch.sender())
    wants_receiver(ch.receiver())


def senders_are_contravariant(ch: Channel[int], side: SendSide[int]) -> None:
    wants_bool_sender(ch)
    wants_bool_sender(ch.sender())
    wants_bool_sender(side)
    wants_object_sender(ch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wants_object_sender(ch.sender())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wants_object_sender(side)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def receivers_are_covariant(ch: Channel[int], side: ReceiveSide[int]) -> None:
    wants_object_receiver(ch)
    wants_object_receiver(ch.receiver())
    wants_object_receiver(side)
    wants_bool_receiver(ch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wants_bool_receiver(ch.receiver())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wants_bool_receiver(side)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def a_channel_itself_is_invariant(narrow: Channel[bool], wide: Channel[object]) -> None:
    wants_channel(narrow)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wants_channel(wide)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def a_side_does_not_become_the_other(sends: SendSide[int], receives: ReceiveSide[int]) -> None:
    wants_receiver(sends)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wants_sender(receives)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wants_channel(sends)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wants_channel(receives)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def a_side_has_one_direction(sends: SendSide[int], receives: ReceiveSide[int]) -> None:
    assert_type(await receives.receive(), int)
    await sends.send(1)
    sends.receive()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    receives.send(1)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    async for item in receives:
        assert_type(item, int)


async def so_do_the_views(ch: Channel[int]) -> None:
    ch.sender().receive()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    ch.receiver().send(1)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
