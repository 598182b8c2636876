"""The first tables."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, String, Text
from sqlalchemy.dialects.mysql import MEDIUMBLOB, MEDIUMTEXT

revision = "0001"
down_revision = None

document_type = Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")
payload_type = LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb")
options: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.create_table(
        "counters",
        Column("name", String(64), primary_key=True),
        Column("next", BigInteger, nullable=False),
        **options,
    )
    op.create_table(
        "collections",
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("database", String(255), nullable=False),
        Column("name", String(255), nullable=False),
        Column("state", String(8), nullable=False),
        Column("dropped_ms", BigInteger),
        Column("document", document_type, nullable=False),
        Column("ddl", BigInteger, nullable=False),
        Column("updated_ts", BigInteger, nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("head", String(64), nullable=False),
        Column("last_ts", BigInteger, nullable=False),
        Column("forgotten", BigInteger, nullable=False),
        **options,
    )
    op.create_table(
        "names",
        Column("database", String(255), primary_key=True),
        Column("name", String(255), primary_key=True),
        Column("collection_id", BigInteger, nullable=False),
        Column("alias", Boolean, nullable=False),
        **options,
    )
    op.create_index("names_collection", "names", ["collection_id"])
    op.create_table(
        "files",
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("collection_id", BigInteger, nullable=False),
        Column("kind", Integer, nullable=False),
        Column("added", BigInteger, nullable=False),
        Column("removed", BigInteger, nullable=False),
        Column("removed_ms", BigInteger),
        Column("document", document_type, nullable=False),
        **options,
    )
    op.create_index("files_added", "files", ["collection_id", "added"])
    op.create_index("files_removed", "files", ["collection_id", "removed"])
    op.create_index("files_removed_ms", "files", ["removed_ms"])
    op.create_table(
        "payloads",
        Column("file_id", BigInteger, primary_key=True, autoincrement=False),
        Column("data", payload_type, nullable=False),
        **options,
    )
    op.create_table(
        "commits",
        Column("collection_id", BigInteger, primary_key=True, autoincrement=False),
        Column("version", BigInteger, primary_key=True, autoincrement=False),
        Column("uuid", String(64), nullable=False),
        Column("previous", String(64), nullable=False),
        Column("kind", String(8), nullable=False),
        Column("ts", BigInteger, nullable=False),
        **options,
    )
    op.create_index("commits_uuid", "commits", ["collection_id", "uuid"], unique=True)
    op.create_table(
        "leases",
        Column("name", String(255), primary_key=True),
        Column("owner", String(255), nullable=False),
        Column("nonce", String(64), nullable=False),
        Column("until_ms", BigInteger, nullable=False),
        **options,
    )
    op.create_table(
        "members",
        Column("id", String(255), primary_key=True),
        Column("document", document_type, nullable=False),
        **options,
    )
