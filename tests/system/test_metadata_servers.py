"""A server over MariaDB or PostgreSQL: what clients see while the SQL server is gone or hangs, and after (P14, I17)."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from making import make_collection
from pymilvus import MilvusClient, MilvusException
from servers import Server, eventually

from services import SqlServer

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

DIM = 8
ROWS = 300
FAILS_WITHIN_S = 3.0  # what asks a server that was killed
GIVES_UP_WITHIN_S = 8.0  # what asks one that hangs
HEALS_WITHIN_S = 10.0


@pytest.fixture(params=["mariadb", "postgresql"])
def sql(request: pytest.FixtureRequest) -> SqlServer:
    found: SqlServer = request.getfixturevalue(request.param)
    return found


class House:
    """A standalone server over the SQL server, with a loaded collection of rows; row i has the vector i."""

    def __init__(self, client: MilvusClient) -> None:
        self.client = client
        self.vectors = np.random.default_rng(7).standard_normal((2 * ROWS, DIM)).astype(np.float32)
        self.rows = 0
        make_collection(client, "books", dim=DIM)

    def write(self, count: int = 1) -> None:
        first = self.rows
        self.client.insert("books", [{"id": i, "vector": self.vectors[i]} for i in range(first, first + count)])
        self.rows += count

    def finds(self, row: int, level: str) -> bool:
        hits = self.client.search("books", [self.vectors[row]], limit=1, consistency_level=level)
        return bool(hits[0][0]["id"] == row)

    def refuses(self, call: Callable[[], object], within_s: float) -> None:
        """The call fails soon, with an error that a repetition may help against."""
        began = time.monotonic()
        with pytest.raises(MilvusException) as caught:
            call()
        assert "metadata service" in str(caught.value), caught.value
        assert time.monotonic() - began < within_s

    def works(self) -> bool:
        """A write and a Strong search succeed."""
        try:
            self.write()
            return self.finds(self.rows - 1, "Strong")
        except MilvusException:
            return False


def test_an_outage_of_the_sql_server_stops_no_search(sql: SqlServer, launch: Callable[..., Server]) -> None:
    """Killed, or hanging: Bounded searches go on, writes and Strong fail soon and clearly, and when it is back
    everything works without a restart, with all that was acknowledged."""
    server = launch("serve", "--metadata", sql.new_database())
    house = House(server.client(timeout=20.0))
    house.write(ROWS)
    house.client.flush("books")
    house.write(20)
    assert house.finds(0, "Strong") and house.finds(ROWS + 5, "Strong")

    sql.kill()
    assert house.finds(1, "Bounded")
    house.refuses(house.write, FAILS_WITHIN_S)
    house.refuses(lambda: house.finds(2, "Strong"), FAILS_WITHIN_S)
    assert all(house.finds(row, "Bounded") for row in range(0, ROWS + 20, 40))
    sql.start()
    eventually(house.works, HEALS_WITHIN_S, "writes after the restart")

    sql.pause()
    try:
        assert house.finds(3, "Bounded")
        house.refuses(house.write, GIVES_UP_WITHIN_S)
        house.refuses(lambda: house.finds(4, "Strong"), GIVES_UP_WITHIN_S)
        assert all(house.finds(row, "Bounded") for row in range(0, ROWS + 20, 40))
    finally:
        sql.resume()
    eventually(house.works, HEALS_WITHIN_S, "writes after it went on")

    counted = house.client.query("books", output_fields=["count(*)"], consistency_level="Strong")
    assert counted[0]["count(*)"] >= ROWS + 22  # a write that failed may yet have happened
    house.client.close()
    assert server.stop() == 0
