"""Back-pressure through a whole cluster: rows are refused at a bound, deletes never (P15)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rows as r
from msgspec.structs import replace

from mishards.config import WriterSettings
from mishards.errors import Kind, MishardsError
from mishards.testing.cluster import LIVELY, cluster

FILES_MAX = 5
BOUNDED = replace(LIVELY, writer=WriterSettings(seal_files=1000, seal_age_s=1000.0, fresh_files_max=FILES_MAX))


async def test_a_full_shard(tmp_path: Path) -> None:
    """A client gets RATE_LIMIT with fact, value and limit; deletes and searches go on; a flush makes room."""
    random = np.random.default_rng(3)
    async with cluster(tmp_path, settings=BOUNDED) as made:
        await r.create(made.proxy)
        written = 0
        with pytest.raises(MishardsError) as raised:
            while written < 10 * FILES_MAX:
                await r.write(made.proxy, [r.row(written, random)])
                written += 1

        assert written == FILES_MAX
        assert raised.value.kind is Kind.RATE_LIMIT
        assert f"holds {FILES_MAX} files of rows" in raised.value.message
        assert f"the limit is {FILES_MAX} (writer.fresh_files_max)" in raised.value.message
        await r.delete(made.proxy, "id in [0]")
        assert sorted(await r.numbers(made.proxy)) == list(range(1, FILES_MAX))

        await made.proxy.flush("default", [r.NAME])
        while True:
            try:
                await r.write(made.proxy, [r.row(0, random)])
            except MishardsError as error:  # until the next look at the shard
                assert error.kind is Kind.RATE_LIMIT
            else:
                break
        assert sorted(await r.numbers(made.proxy)) == list(range(FILES_MAX))
