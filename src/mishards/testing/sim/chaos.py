"""What happens to whole processes, links and services while there is trouble, each for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mishards.testing.sim.loop import State
from mishards.testing.sim.node import Node

if TYPE_CHECKING:
    from mishards.testing.sim.world import World

TROUBLE_S = (3.0, 3.0, 5.0, 10.0)
NODES_MAX = 10
STOP_S_MAX = 20.0


async def trouble(world: World) -> None:
    """One event after the other, for some seconds."""
    random = world.random
    kinds = world.faults.kinds + world.forgetting.kinds
    ends_s = world.loop.time() + random.choice(TROUBLE_S)
    going_on: list[asyncio.Task[None]] = []
    while world.loop.time() < ends_s:
        await asyncio.sleep(min(random.expovariate(1 / world.faults.pause_s_mean), ends_s - world.loop.time()))
        if kinds and world.loop.time() < ends_s:
            kind = random.choice(kinds)
            world.events[kind] += 1
            going_on.append(asyncio.create_task(EVENTS[kind](world)))
    for task in going_on:
        await task


def _any_node(world: World) -> Node | None:
    nodes = [node for node in world.nodes.values() if node.ready and node.process.state is State.RUNNING]
    return world.random.choice(nodes) if nodes else None


async def kill(world: World) -> None:
    """A process dies; one of the same name starts, at once or after a while."""
    node = _any_node(world)
    if node is None:
        return
    silently = world.random.random() < 0.3
    world.note(f"kill {node.name}{' silently' if silently else ''}")
    world.kill(node, silently)
    await asyncio.sleep(world.random.choice((0.05, 1.0, 4.0)))
    await _restart(world, node)


async def pause(world: World) -> None:
    node = _any_node(world)
    if node is None:
        return
    seconds = world.random.choice((0.1, 1.0, 3.0, 5.0))
    world.note(f"pause {node.name} for {seconds:g} s")
    node.process.pause()
    await asyncio.sleep(seconds)
    if node.process.state is State.PAUSED:
        world.note(f"{node.name} goes on")
        node.process.go_on()


async def leave(world: World) -> None:
    """A process stops as it should; another one starts."""
    node = _any_node(world)
    if node is None:
        return
    node.ready = False
    world.note(f"stop {node.name}")
    try:
        await node.call(node.server.stop, STOP_S_MAX)
    except Exception as error:
        world.note(f"{node.name} did not stop well: {error!r}")
    world.kill(node)
    world.note(f"{node.name} stopped")
    await asyncio.sleep(world.random.choice((0.05, 1.0)))
    await _restart(world, node)


async def join(world: World) -> None:
    if len(world.nodes) >= NODES_MAX:
        return
    roles = world.random.choice(("reader", "writer", "builder", "proxy", "reader,writer"))
    name = world.new_name(roles)
    world.note(f"start {name}")
    await world.start(name, roles)


async def cut(world: World) -> None:
    one, other = _any_node(world), _any_node(world)
    if one is None or other is None or one is other:
        return
    world.note(f"cut {one.name} from {other.name}")
    world.network.cut(one.name, other.name)
    await asyncio.sleep(world.random.choice((0.5, 3.0, 12.0)))
    world.note("links heal")
    world.network.heal()


async def break_link(world: World) -> None:
    world.network.break_one()


async def storage_down(world: World) -> None:
    await _down(world, "storage")


async def metadata_down(world: World) -> None:
    await _down(world, "metadata")


async def _down(world: World, what: str) -> None:
    service = world.metadata if what == "metadata" else world.objects
    world.note(f"{what} is down")
    service.down = True
    await asyncio.sleep(world.random.choice((0.3, 2.0, 6.0)))
    world.note(f"{what} is up")
    service.down = False


async def fall_back(world: World) -> None:
    """A replica of the metadata service takes over that lacks the last moments."""
    if world.forgetting.fall_back():
        world.metadata.down = True
        await asyncio.sleep(world.random.choice((0.0, 0.3, 2.0)))
        world.metadata.down = False


async def cut_off(world: World) -> None:
    """One process does not reach storage or the metadata service."""
    node = _any_node(world)
    if node is None:
        return
    service = world.random.choice((world.metadata, world.objects))
    world.note(f"{node.name} is cut off from {'metadata' if service is world.metadata else 'storage'}")
    service.cut_off.add(node.name)
    await asyncio.sleep(world.random.choice((0.5, 3.0, 6.0)))
    service.cut_off.discard(node.name)


async def _restart(world: World, node: Node) -> None:
    if node.name not in world.nodes:
        while await world.start(node.name, ",".join(node.roles)) is None:  # noqa: ASYNC110 - as a supervisor does
            await asyncio.sleep(1.0)
        world.note(f"{node.name} is back")


EVENTS = {
    "kill": kill,
    "pause": pause,
    "cut": cut,
    "break": break_link,
    "leave": leave,
    "join": join,
    "storage": storage_down,
    "metadata": metadata_down,
    "cut off": cut_off,
    "fall back": fall_back,
}
