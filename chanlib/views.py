"""One-way views of a channel: the same channel, seen from one side. They are not counted and own nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._core.engine import Op
from .iterating import Received

if TYPE_CHECKING:
    from .channels import Channel, ChannelStatistics
    from .permits import Permit
    from .sending import SendAll

__all__ = ["ReceiveView", "SendView"]

T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class SendView(Generic[T_contra]):
    """A channel that can only be sent to."""

    __slots__ = ("_channel",)

    def __init__(self, channel: Channel[T_contra]) -> None:
        self._channel = channel

    def send(self, value: T_contra, /) -> Op[None]:
        """As `Channel.send`."""
        return self._channel.send(value)

    def send_nowait(self, value: T_contra, /) -> None:
        """As `Channel.send_nowait`."""
        self._channel.send_nowait(value)

    def send_some(self, values: Sequence[T_contra], /) -> Op[int]:
        """As `Channel.send_some`."""
        return self._channel.send_some(values)

    def send_all(self, values: Iterable[T_contra], /) -> SendAll[T_contra]:
        """As `Channel.send_all`."""
        return self._channel.send_all(values)

    def force_send(self, value: T_contra, /) -> list[Any]:
        """As `Channel.force_send`."""
        return self._channel.force_send(value)

    def reserve(self, places: int = 1, /) -> Op[Permit[T_contra]]:
        """As `Channel.reserve`."""
        return self._channel.reserve(places)

    def close(self, cause: BaseException | None = None) -> bool:
        """As `Channel.close`: it ends for every sender."""
        return self._channel.close(cause)

    @property
    def is_closed(self) -> bool:
        """As `Channel.is_closed`."""
        return self._channel.is_closed

    def wait_closed(self) -> Op[None]:
        """As `Channel.wait_closed`."""
        return self._channel.wait_closed()

    def statistics(self) -> ChannelStatistics:
        """As `Channel.statistics`."""
        return self._channel.statistics()

    def __repr__(self) -> str:
        return f"<sender of {self._channel!r}>"


class ReceiveView(Received[T_co]):
    """A channel that can only be received from."""

    __slots__ = ("_channel",)

    def __init__(self, channel: Channel[T_co]) -> None:
        self._channel = channel

    def receive(self) -> Op[T_co]:
        """As `Channel.receive`."""
        return self._channel.receive()

    def receive_nowait(self) -> T_co:
        """As `Channel.receive_nowait`."""
        return self._channel.receive_nowait()

    def receive_some(self, max: float = math.inf, /) -> Op[list[T_co]]:
        """As `Channel.receive_some`."""
        return self._channel.receive_some(max)

    def drain(self) -> list[T_co]:
        """As `Channel.drain`."""
        return self._channel.drain()

    def cancel(self, cause: BaseException | None = None) -> bool:
        """As `Channel.cancel`."""
        return self._channel.cancel(cause)

    @property
    def is_closed(self) -> bool:
        """As `Channel.is_closed`."""
        return self._channel.is_closed

    def wait_closed(self) -> Op[None]:
        """As `Channel.wait_closed`."""
        return self._channel.wait_closed()

    def statistics(self) -> ChannelStatistics:
        """As `Channel.statistics`."""
        return self._channel.statistics()

    def __op__(self) -> Op[T_co]:
        return self._channel.receive()

    def __repr__(self) -> str:
        return f"<receiver of {self._channel!r}>"
