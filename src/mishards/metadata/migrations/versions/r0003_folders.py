"""Folders in storage that belong to no collection."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column

revision = "0003"
down_revision = "0002"

options: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.create_table(
        "folders",
        Column("collection_id", BigInteger, primary_key=True, autoincrement=False),
        Column("filling", Boolean, nullable=False),
        Column("since_ms", BigInteger, nullable=False),
        Column("due_ms", BigInteger, nullable=False),
        **options,
    )
    op.create_index("folders_due_ms", "folders", ["due_ms"])
