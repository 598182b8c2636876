"""Run by Alembic to migrate: on the connection, and in the transaction, that `metadata/migrate.py` gives."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
