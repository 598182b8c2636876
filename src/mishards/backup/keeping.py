"""Backups that exist: checking one, dropping one. Both need the target storage only."""

from __future__ import annotations

from pathlib import Path

from mishards.backup import document
from mishards.backup.copying import Progress, Tick, look_at
from mishards.backup.document import COMPLETE, FOLDER, OBJECTS, UNFINISHED, Backup
from mishards.errors import Kind, MishardsError, invalid
from mishards.ports import Storage


async def verify(target: Storage, backup: Backup, scratch: Path, progress: Progress) -> list[str]:
    """What is wrong, in sentences; empty if every object is there as it was copied. Reads all of them."""
    problems = []
    tick = Tick(backup.bytes, progress)
    known = {stored.path for stored in backup.objects}
    lacking = {path for saved in backup.collections for path in saved.paths} - known
    problems += [f"object {path} is not in the backup's list" for path in sorted(lacking)]
    local = scratch / "verify"
    for stored in backup.objects:
        try:
            found = await look_at(target, OBJECTS + stored.path, local, stored.path)
        except MishardsError as error:
            if error.kind not in (Kind.GONE, Kind.STORAGE_UNAVAILABLE):
                raise
            problems.append(f"object {stored.path}: {error.message}")
        else:
            if found != stored:
                problems.append(f"object {stored.path} has crc32 {found.crc32:08x}, expected {stored.crc32:08x}")
        finally:
            local.unlink(missing_ok=True)
        tick(stored.bytes)
    return problems


async def drop(target: Storage, name: str) -> int:
    """Drop a backup, complete or not, and the objects that no other needs: how many went. While another one is being
    made nothing is dropped: it may count on objects of this one."""
    document.check_name(name)
    complete = name in await document.names(target)
    if not complete and name not in await document.names(target, UNFINISHED):
        raise invalid(f"there is no backup {name}")
    await _check_quiet(target, name)
    await target.delete([FOLDER + name + COMPLETE])  # first: half an object list is no backup
    needed = {OBJECTS + stored.path for backup in await document.read_all(target) for stored in backup.objects}
    await _check_quiet(target, name)
    unneeded = [path for path in await target.list(OBJECTS) if path not in needed]
    await target.delete(unneeded)
    await target.delete([FOLDER + name + UNFINISHED])
    return len(unneeded)


async def _check_quiet(target: Storage, name: str) -> None:
    others = [other for other in await document.names(target, UNFINISHED) if other != name]
    if others:
        raise invalid(f"backup {others[0]} is unfinished: make it again or drop it first")
