"""Empty databases on real SQL servers. This folder is importable (`from relay import relay_to`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine

from mishards.metadata import migrate
from mishards.metadata.database import parse_url
from mishards.metadata.tables import metadata
from services import SqlServer


@pytest.fixture(scope="module", params=["mariadb", "postgresql"])
def server(request: pytest.FixtureRequest) -> SqlServer:
    found: SqlServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def database(server: SqlServer) -> str:
    """The URL of a database that the tests of a module share."""
    url = server.new_database()
    migrate.upgrade(parse_url(url))
    return url


@pytest.fixture
def url(database: str) -> Iterator[str]:
    """The URL of that database, emptied after the test."""
    yield database
    engine = create_engine(parse_url(database))
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(table.delete())
    engine.dispose()
