"""The network: connections between processes that carry real frames late, stall while cut, and break.

What a connection delivers it delivers in order, as TCP does. A cut link holds everything back; after a while both ends
learn that the connection is lost. A killed process' peers are told at once, or, as when a machine loses power, not.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from mishards.testing.sim.faults import Faults
from mishards.testing.sim.loop import PROCESS, WORLD, Process, SimLoop, State

UNANSWERED_S_MAX = 10.0  # after so long on a cut link a connection is lost
FIRST_PORT = 20_000


class Network:
    """All listeners and connections."""

    def __init__(self, loop: SimLoop, faults: Faults) -> None:
        self.loop = loop
        self.faults = faults
        self.connections: list[Link] = []
        self._listeners: dict[int, Listener] = {}
        self._cuts: set[frozenset[str]] = set()
        self._port = FIRST_PORT

    def listen(self, factory: Callable[[], asyncio.BaseProtocol]) -> Listener:
        process = PROCESS.get()
        assert process is not None
        self._port += 1
        listener = Listener(self, self._port, process, factory)
        self._listeners[self._port] = listener
        return listener

    async def connect(self, factory: Callable[[], asyncio.BaseProtocol], port: int) -> tuple[End, Any]:
        caller = PROCESS.get()
        assert caller is not None
        await asyncio.sleep(self.faults.network_s())
        listener = self._listeners.get(port)
        if listener is not None and self.is_cut(caller, listener.process):
            await asyncio.sleep(UNANSWERED_S_MAX)
            raise TimeoutError("no answer")
        if listener is None or listener.process.state is State.DEAD:
            raise ConnectionRefusedError(f"port {port} refused")
        link = Link(self, (caller, factory()), (listener.process, listener.factory()))
        self.connections.append(link)
        link.open()
        return link.ends[0], link.ends[0].protocol

    def close(self, listener: Listener) -> None:
        self._listeners.pop(listener.port, None)

    # --------------------------------------------------------------------------------------------------------- faults

    def is_cut(self, one: Process, other: Process) -> bool:
        return frozenset((one.name, other.name)) in self._cuts

    def cut(self, one: str, other: str) -> None:
        self._cuts.add(frozenset((one, other)))

    def heal(self) -> None:
        self._cuts.clear()
        for link in list(self.connections):
            link.flow()

    def break_one(self) -> None:
        """Reset any one connection."""
        if self.connections:
            self.loop.random.choice(self.connections).lose(ConnectionResetError("connection reset"))

    def process_died(self, process: Process, silently: bool) -> None:
        for port in [port for port, listener in self._listeners.items() if listener.process is process]:
            if not silently:
                del self._listeners[port]
        for link in list(self.connections):
            if process in (link.ends[0].process, link.ends[1].process):
                if silently:
                    self.loop.call_later(UNANSWERED_S_MAX, link.lose, TimeoutError("no answer"), context=WORLD)
                else:
                    link.lose(ConnectionResetError("connection reset"))


class Listener:
    """What `loop.create_server` returns."""

    def __init__(self, network: Network, port: int, process: Process, factory: Callable[[], Any]) -> None:
        self.port = port
        self.process = process
        self.factory = factory
        self.sockets = (self,)
        self._network = network

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def close(self) -> None:
        self._network.close(self)

    async def wait_closed(self) -> None:
        return


class Link:
    """One connection: two ends."""

    def __init__(self, network: Network, *ends: tuple[Process, Any]) -> None:
        self.network = network
        self.ends = tuple(End(self, number, process, protocol) for number, (process, protocol) in enumerate(ends))
        self.lost = False

    def open(self) -> None:
        """The caller is at it right now."""
        caller, listener = self.ends
        caller.protocol.connection_made(caller)
        listener.call(listener.protocol.connection_made, listener)

    def lose(self, error: Exception | None) -> None:
        """Both ends learn of it; what is under way is gone."""
        if self.lost:
            return
        self.lost = True
        self.network.connections.remove(self)
        for end in self.ends:
            end.inbox.clear()
            end.call_later(self.network.faults.network_s(), end.protocol.connection_lost, error)

    @property
    def cut(self) -> bool:
        return self.network.is_cut(self.ends[0].process, self.ends[1].process)

    def flow(self) -> None:
        for end in self.ends:
            end.stalled_s = None
            for _ in end.inbox:
                end.schedule()


class End:
    """One end of a connection: the `asyncio.Transport` of its process, and the way that bytes take to it."""

    family = socket.AF_UNIX  # no options to set

    def __init__(self, link: Link, number: int, process: Process, protocol: Any) -> None:
        self.process = process
        self.protocol = protocol
        self.inbox: deque[bytes] = deque()
        self.stalled_s: float | None = None
        self._link = link
        self._number = number
        self._last_s = 0.0

    @property
    def _peer(self) -> End:
        return self._link.ends[1 - self._number]

    def call(self, callback: Callable[..., None], *arguments: Any) -> None:
        self._link.network.loop.call_soon(callback, *arguments, context=self.process.context)

    def call_later(self, delay_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        self._link.network.loop.call_later(delay_s, callback, *arguments, context=self.process.context)

    # the transport
    def get_extra_info(self, name: str) -> Any:
        return self

    def write(self, data: Any) -> None:
        self.writelines([data])

    def writelines(self, chunks: list[Any]) -> None:
        if self._link.lost:
            return
        data = b"".join(chunks)
        faults = self._link.network.faults
        at = faults.split(len(data))
        for part in (data[:at], data[at:]) if at else (data,):
            self._peer.inbox.append(part)
            self._peer.schedule()

    def close(self) -> None:
        """What was sent arrives first."""
        self._link.network.loop.call_later(0.5, self._link.lose, None, context=WORLD)

    def abort(self) -> None:
        self._link.lose(None)

    # the way to here
    def schedule(self) -> None:
        """Each piece comes after the one before."""
        loop = self._link.network.loop
        self._last_s = max(self._last_s + 1e-6, loop.time() + self._link.network.faults.network_s())
        loop.call_at(self._last_s, self._arrive, context=WORLD)

    def _arrive(self) -> None:
        if self._link.lost or not self.inbox:
            return
        loop = self._link.network.loop
        if self._link.cut:
            if self.stalled_s is None:
                self.stalled_s = loop.time()
                loop.call_later(UNANSWERED_S_MAX, self._give_up, self.stalled_s, context=WORLD)
            return
        self.call(self.protocol.data_received, self.inbox.popleft())

    def _give_up(self, stalled_s: float) -> None:
        if self.stalled_s == stalled_s:
            self._link.lose(TimeoutError("no answer"))
