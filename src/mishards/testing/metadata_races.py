"""What a metadata service must stand: many clients at once, names that look alike, and large values."""

from __future__ import annotations

import asyncio
import itertools

from msgspec.structs import replace

from mishards.model import CollectionId, FileId, FileKind, NodeId, Version
from mishards.ports import MetadataStore
from mishards.testing.metadata_records import a_collection, a_commit, a_file

# Different names of one look: case, accent, composition, width, ligature, a letter that some orders take for two.
LOOKALIKES = (
    *("strasse", "Strasse", "straße", "cafe", "café", "cafe\u0301", "\uff43afe", "file", "\ufb01le"),
    *("naïve", "NAÏVE", "😀", "😁"),
)


class RacesSuite:
    """Everything that clients do, at once."""

    async def test_everything_at_once_fails_nobody(self, store: MetadataStore, other: MetadataStore) -> None:
        """Commits to one collection and to several, changes of definitions, leases, beats and ids at the same moment
        all succeed, and every chain is whole (I2)."""
        definitions = [a_collection(id, f"books{id}") for id in (1, 2, 3)]
        for collection in definitions:
            await store.create_collection(collection)
            await store.acquire(f"shard/{collection.id}/0", NodeId("me"), f"n{collection.id}", 60)

        async def commits(client: MetadataStore, number: int) -> None:
            for step in range(5):
                id = CollectionId(1 + (number + step) % 3)
                file = replace(a_file(number * 100 + step + 1), collection_id=id)
                await client.commit(
                    a_commit(f"u{number}-{step}", file, collection_id=id, leases=((f"shard/{id}/0", f"n{id}"),))
                )
                await client.renew([(f"shard/{other_id}/0", f"n{other_id}") for other_id in (3, 1, 2)], 60)

        async def changes(client: MetadataStore, old_index: int) -> None:
            old = definitions[old_index]
            for step in range(5):
                new = replace(old, aliases=(f"alias{old.id}-{step}",), updated_ts=old.updated_ts + 1)
                await client.replace_collections([(old, new)])
                await client.take_ids(3)
                old = new

        clients = itertools.cycle((store, other))
        await asyncio.gather(
            *(commits(next(clients), number) for number in range(8)), *(changes(next(clients), at) for at in range(3))
        )

        chains = [await store.commits(collection.id, Version(0)) for collection in definitions]
        assert sum(len(chain) for chain in chains) == 40
        for chain in chains:
            assert [link.version for link in chain] == list(range(1, len(chain) + 1))
            assert [link.previous for link in chain] == ["", *(link.uuid for link in chain[:-1])]

    async def test_a_delta_is_one_moment(self, store: MetadataStore, other: MetadataStore) -> None:
        """While commits replace a file again and again, every delta has exactly the file of its version."""
        await store.create_collection(a_collection())
        await store.commit(a_commit("u1", a_file(1)))
        done = asyncio.Event()

        async def look() -> list[tuple[Version, list[Version]]]:
            seen = []
            while not done.is_set():
                delta = await other.delta(CollectionId(1), Version(0))
                seen.append((delta.version, [file.added for file in delta.added]))
            return seen

        async def replace_on() -> None:
            for number in range(2, 40):
                await store.commit(a_commit(f"u{number}", a_file(number, FileKind.SEGMENT), removed=(number - 1,)))
            done.set()

        *looks, _ = await asyncio.gather(look(), look(), replace_on())

        seen = [each for some in looks if some for each in some]
        assert len({version for version, _ in seen}) > 1
        assert all(added == [version] for version, added in seen)

    async def test_names_compare_byte_by_byte(self, store: MetadataStore) -> None:
        """Names, aliases and leases that differ only in case, accent or composition are different ones."""
        for id, name in enumerate(LOOKALIKES, 1):
            await store.create_collection(a_collection(id, name, aliases=(f"a {name}",)))
            await store.acquire(f"task/{name}", NodeId(name), "n", 60)

        ids = [CollectionId(id) for id in range(1, len(LOOKALIKES) + 1)]
        assert [collection.name for collection, _ in await store.collections(ids)] == list(LOOKALIKES)
        assert {lease.name: lease.owner for lease in await store.leases("")} == {
            f"task/{name}": name for name in LOOKALIKES
        }
        assert {lease.owner for lease in await store.leases("task/cafe")} == {"cafe", "cafe\u0301"}

    async def test_large_values_come_back_as_they_were(self, store: MetadataStore) -> None:
        """A definition of a megabyte, and commits of payloads of any bytes that together are megabytes."""
        collection = a_collection(properties={"note": "ü" * 500_000})
        files = [a_file(id) for id in range(1, 51)]
        payloads = {file.id: bytes(range(256)) * 256 + b"%d" % file.id for file in files}

        await store.create_collection(collection)
        await store.commit(replace(a_commit("u1", *files), payloads=payloads))

        assert [found for found, _ in await store.collections([collection.id])] == [collection]
        assert await store.payloads([FileId(id) for id in range(1, 60)]) == payloads
