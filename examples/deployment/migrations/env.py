"""Alembic on the layer's own engine: no URL is written down, and no password."""

from __future__ import annotations

from alembic import context

from app.db import Base, import_models, sync_engine

import_models()

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    with sync_engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()
    sync_engine.dispose()
