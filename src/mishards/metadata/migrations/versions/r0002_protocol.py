"""What pins and repeated requests need."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Column, String, Text
from sqlalchemy.dialects.mysql import MEDIUMTEXT

revision = "0002"
down_revision = "0001"

document_type = Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")
options: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.create_table(
        "requests",
        Column("id", String(255), primary_key=True),
        Column("collection_id", BigInteger, nullable=False),
        Column("uuid", String(64), nullable=False),
        Column("at_ms", BigInteger, nullable=False),
        **options,
    )
    op.create_index("requests_at_ms", "requests", ["at_ms"])
    op.create_table(
        "pins",
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("collection_id", BigInteger, nullable=False),
        Column("name", String(255), nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("holder", BigInteger, nullable=False),
        Column("until_ms", BigInteger),
        Column("document", document_type, nullable=False),
        **options,
    )
    op.create_index("pins_name", "pins", ["collection_id", "name"], unique=True)
    op.create_index("pins_holder", "pins", ["holder"])
