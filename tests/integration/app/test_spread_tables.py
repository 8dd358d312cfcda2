"""The tables recommended for Citus, on plain PostgreSQL, held against the rules that its documentation states."""

from __future__ import annotations

import pytest

from tests import documents

from .servers import run_python

# What Citus refuses, as its documentation has it: a unique index without the column that the table is spread by, and a
# foreign key from one such table to another that does not join the two columns.
_STAND_IN = """
CREATE TABLE spread (relation regclass PRIMARY KEY, attribute smallint NOT NULL);
CREATE FUNCTION create_distributed_table(name text, by_column text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    number smallint := (SELECT attnum FROM pg_attribute WHERE attrelid = name::regclass AND attname = by_column);
    wrong text;
BEGIN
    SELECT indexrelid::regclass INTO wrong FROM pg_index
        WHERE indrelid = name::regclass AND indisunique AND NOT number = ANY(indkey);
    IF FOUND THEN RAISE EXCEPTION 'unique index % has no column %', wrong, by_column; END IF;
    SELECT conname INTO wrong FROM pg_constraint JOIN spread ON relation = confrelid
        WHERE contype = 'f' AND conrelid = name::regclass
        AND array_position(conkey, number) IS DISTINCT FROM coalesce(array_position(confkey, attribute), 0);
    IF FOUND THEN RAISE EXCEPTION 'foreign key % does not join the columns', wrong; END IF;
    INSERT INTO spread VALUES (name::regclass, number);
END $$;
"""
_TABLES = next(
    block.text
    for block in documents.blocks(documents.ROOT / "docs" / "production-layer.md")
    if "class OrderLine(Base)" in block.text
)
_SPREAD = f"""
import asyncio
from sqlalchemy import select, text
from app.db import create_tables, get_async_session, get_sync_session, sqlstate, sync_engine

create_tables()
with sync_engine.begin() as connection:
    connection.exec_driver_sql({_STAND_IN.replace("%", "%%")!r})

def spread(*tables):
    try:
        with get_sync_session() as session:
            for table, column in tables:
                session.execute(text(f"SELECT create_distributed_table('{{table}}', '{{column}}')"))
    except Exception as error:
        return str(error.orig).splitlines()[0]
    return "spread"
"""


def test_the_recommended_tables() -> None:
    """The page's tables can be spread by account, and both drivers write and read them by their compound keys."""
    code = f"""{_TABLES}{_SPREAD}
print(spread(("accounts", "id"), ("orders", "account_id"), ("order_lines", "account_id")))
with get_sync_session() as session:
    session.add(account := Account())
    session.flush()
    session.add(order := Order(account.id, "first"))
    session.flush()
    session.add(line := OrderLine(account.id, order.id))

async def main():
    async with get_async_session() as session:
        session.add(OrderLine(account.id, order.id))
        found = await session.get(Order, (account.id, order.id))
        lines = select(OrderLine).where(OrderLine.account_id == account.id, OrderLine.order_id == order.id)
        return [found.reference, len((await session.scalars(lines)).all())]

print(asyncio.run(main()))
try:
    with get_sync_session() as session:
        session.add(OrderLine(account.id, order.id + 1))
except Exception as error:
    print(sqlstate(error))
"""
    assert run_python(code).splitlines() == ["spread", "['first', 2]", "23503"]


@pytest.mark.parametrize(
    ("name", "column", "refusal"),
    [
        ("by_number", "account_id", "unique index by_number_pkey has no column account_id"),
        ("loose", "account_id", "foreign key loose_order_id_fkey does not join the columns"),
    ],
)
def test_the_rules_are_held_against_them(name: str, column: str, refusal: str) -> None:
    """A key without the account, or a foreign key that leads past it, would be refused."""
    code = f"""{_TABLES}
class ByNumber(Base):
    __tablename__ = "by_number"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    account_id: Mapped[int]

class Loose(Base):
    __tablename__ = "loose"
    account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey(Account.id))
{_SPREAD}
print(spread(("accounts", "id"), ({name!r}, {column!r})))
"""
    assert run_python(code) == refusal
