"""The tables of the metadata service.

What queries compare is a column; everything else of a record is one JSON document, so that a new field of the model
needs no migration. Dialect-neutral: SQLite, MySQL/MariaDB and PostgreSQL. Names compare byte by byte everywhere.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text
from sqlalchemy.dialects.mysql import MEDIUMBLOB, MEDIUMTEXT

NAME_LENGTH = 255  # Milvus' limit
TOKEN_LENGTH = 64  # node ids, nonces, uuids (32 hex digits)

LIVE = "live"  # states of a collection
DROPPED = "dropped"

document_type = Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")
payload_type = LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb")
options: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}  # MySQL's default ignores case

metadata = MetaData()

counters = Table(
    "counters",
    metadata,
    Column("name", String(TOKEN_LENGTH), primary_key=True),
    Column("next", BigInteger, nullable=False),
    **options,
)

collections = Table(
    "collections",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("database", String(NAME_LENGTH), nullable=False),
    Column("name", String(NAME_LENGTH), nullable=False),
    Column("state", String(8), nullable=False),  # live, dropped
    Column("dropped_ms", BigInteger),
    Column("document", document_type, nullable=False),
    Column("ddl", BigInteger, nullable=False),
    Column("updated_ts", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("head", String(TOKEN_LENGTH), nullable=False),  # uuid of the commit `version`; "" at version 0
    Column("last_ts", BigInteger, nullable=False),
    Column("forgotten", BigInteger, nullable=False),  # the newest removal of a file whose record is deleted
    **options,
)

names = Table(
    "names",
    metadata,
    Column("database", String(NAME_LENGTH), primary_key=True),
    Column("name", String(NAME_LENGTH), primary_key=True),
    Column("collection_id", BigInteger, nullable=False),
    Column("alias", Boolean, nullable=False),
    Index("names_collection", "collection_id"),
    **options,
)

files = Table(
    "files",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("collection_id", BigInteger, nullable=False),
    Column("kind", Integer, nullable=False),
    Column("added", BigInteger, nullable=False),
    Column("removed", BigInteger, nullable=False),  # 0 while live
    Column("removed_ms", BigInteger),
    Column("document", document_type, nullable=False),
    Index("files_added", "collection_id", "added"),
    Index("files_removed", "collection_id", "removed"),
    Index("files_removed_ms", "removed_ms"),
    **options,
)

payloads = Table(
    "payloads",
    metadata,
    Column("file_id", BigInteger, primary_key=True, autoincrement=False),
    Column("data", payload_type, nullable=False),
    **options,
)

commits = Table(
    "commits",
    metadata,
    Column("collection_id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("uuid", String(TOKEN_LENGTH), nullable=False),
    Column("previous", String(TOKEN_LENGTH), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("ts", BigInteger, nullable=False),
    Index("commits_uuid", "collection_id", "uuid", unique=True),
    **options,
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(NAME_LENGTH), primary_key=True),
    Column("owner", String(NAME_LENGTH), nullable=False),
    Column("nonce", String(TOKEN_LENGTH), nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    **options,
)

pins = Table(
    "pins",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("collection_id", BigInteger, nullable=False),
    Column("name", String(NAME_LENGTH), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("holder", BigInteger, nullable=False),  # the collection whose files refer to objects of this one; 0: none
    Column("until_ms", BigInteger),  # by the database's clock; NULL: for ever
    Column("document", document_type, nullable=False),
    Index("pins_name", "collection_id", "name", unique=True),
    Index("pins_holder", "holder"),
    **options,
)

folders = Table(
    "folders",  # in storage, that belong to no collection
    metadata,
    Column("collection_id", BigInteger, primary_key=True, autoincrement=False),
    Column("filling", Boolean, nullable=False),  # by a restore, until due_ms or until it says so again
    Column("since_ms", BigInteger, nullable=False),
    Column("due_ms", BigInteger, nullable=False),  # its objects are deleted then, and again later
    Index("folders_due_ms", "due_ms"),
    **options,
)

members = Table(
    "members",
    metadata,
    Column("id", String(NAME_LENGTH), primary_key=True),
    Column("document", document_type, nullable=False),
    **options,
)

requests = Table(
    "requests",
    metadata,
    Column("id", String(NAME_LENGTH), primary_key=True),
    Column("collection_id", BigInteger, nullable=False),
    Column("uuid", String(TOKEN_LENGTH), nullable=False),  # of the commit; "" of a request that was given up
    Column("at_ms", BigInteger, nullable=False),
    Index("requests_at_ms", "at_ms"),
    **options,
)
