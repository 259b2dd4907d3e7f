"""Ends, permits, broadcasts, watches and locks, as checkers see them. Read by mypy and pyright, never run."""

from signal import SIGTERM, Signals
from typing import assert_type

from anyio.abc import ObjectReceiveStream, ObjectSendStream

from chanlib import (
    Barrier,
    Broadcast,
    Channel,
    Condition,
    Lock,
    Observer,
    Op,
    Permit,
    Receiver,
    ReceiveSide,
    Semaphore,
    Sender,
    SendSide,
    Subscription,
    Watch,
    open_channel,
    select,
    signals,
)


async def ends_have_the_type_of_the_subscript() -> None:
    tx, rx = open_channel[int](10)
    assert_type(tx, Sender[int])
    assert_type(rx, Receiver[int])
    assert_type(tx.clone(), Sender[int])
    assert_type(await rx.receive(), int)
    await tx.send("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sending: SendSide[int] = tx
    receiving: ReceiveSide[int] = rx
    print(sending, receiving)
    async for value in rx:
        assert_type(value, int)


def ends_may_be_given_to_those_who_want_streams(tx: Sender[int], rx: Receiver[int]) -> None:
    print(isinstance(tx, ObjectSendStream), isinstance(rx, ObjectReceiveStream))


async def permits_take_what_the_channel_takes(ch: Channel[int]) -> None:
    with await ch.reserve(2) as permit:
        assert_type(permit, Permit[int])
        permit.send(1)
        permit.send("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(ch.force_send(1), list[int])


async def broadcasts_give_what_was_sent(news: Broadcast[str]) -> None:
    await assert_type(news.send("a"), Op[None])
    with news.subscribe() as mine:
        assert_type(mine, Subscription[str])
        assert_type(await mine.receive(), str)
        side: ReceiveSide[str] = mine
        print(side)
    sending: SendSide[str] = news
    print(sending)


async def watches_give_their_value(state: Watch[int]) -> None:
    assert_type(state.value, int)
    assert_type(state.update(lambda value: value + 1), int)
    observer = assert_type(state.observe(), Observer[int])
    assert_type(await observer.changed(), int)
    assert_type(await observer.wait_for(lambda value: value > 3), int)


async def locks_are_arms(lock: Lock, units: Semaphore, barrier: Barrier, condition: Condition) -> None:
    match await select(lock.acquire(), units.acquire(2), barrier.wait(), condition.notified()):
        case 0, nothing:
            assert_type(nothing, None)
        case 2, place:
            assert_type(place, int)
        case _:
            pass
    assert_type(await condition.wait_for(lambda: "x"), str)
    async with lock, units, condition:
        pass


async def signals_are_received() -> None:
    with signals(SIGTERM) as received:
        assert_type(await received.receive(), Signals)
        index, signum = await select(received, signals(SIGTERM).receive())
        print(index, signum)
