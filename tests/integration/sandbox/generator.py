"""Random scripts of one connection, the same for the same seed, and the shortest part of one that still fails."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from .scripts import Script, Step

_CONTROL: Final = (
    "begin",
    "begin",
    "begin",
    "start transaction",
    "begin read only",
    "commit",
    "commit",
    "end",
    "rollback",
    "rollback",
    "savepoint {s}",
    "savepoint {s}",
    "rollback to {s}",
    "rollback to {s}",
    "release {s}",
    "commit and chain",
    "rollback and chain",
    "set transaction read only",
)
_DATA: Final = (
    "insert into items (id) values ({k})",
    "insert into items (id) values ({k}) returning id, name",
    "insert into items (id, name) values ({k}, 'one')",
    "update items set price = {k} where id = {k}",
    "delete from items where id = {k}",
    "select count(*) from items",
    "select id, price from items order by id",
    "select 1/0",
    "select nothing",
    "selekt",
    "select add_item({k}, null)",
    "select complain('word')",
    "with x as (delete from items where id = {k} returning id) select * from x",
    "select id from items where id < 3 order by id for update",
    "lock table items",
    "",
)
_DEFERRED: Final = (
    "insert into children values ({k}, {k})",
    "insert into children values ({k}, 1, {k})",
    "insert into parents values ({k})",
    "select count(*) from children",
    "set constraints all immediate",
    "set constraints all deferred",
    "set constraints children_parent immediate",
)
_SETTINGS: Final = (
    "set work_mem = '{k}MB'",
    "set local work_mem = '{k}MB'",
    "set timezone = 'Etc/GMT+{k}'",
    "set local timezone = 'Etc/GMT+{k}'",
    "reset timezone",
    "reset work_mem",
    "set work_mem to default",
    "show work_mem",
    "show timezone",
    "select set_config('app.x', '{k}', true)",
    "select set_config('app.x', '{k}', false)",
    "select coalesce(current_setting('app.x', true), '')",
    "reset all",
    "set timezone = 'nowhere'",
    "set role clerk",
    "reset role",
    "select current_user",
    "set default_transaction_read_only = on",
    "set default_transaction_read_only = off",
    "discard all",
)
_CURSORS: Final = (
    "declare {c} cursor for select generate_series(1, 9)",
    "declare {c} cursor for select generate_series(1, 9)",
    "declare {c} scroll cursor with hold for select id from items order by id",
    "fetch {k} from {c}",
    "fetch next from {c}",
    "fetch backward 1 from {c}",
    "move 1 in {c}",
    "close {c}",
    "close all",
)
_NAMES: Final = (
    "prepare {p} as select {k}",
    "prepare {p} (int) as insert into items (id) values ($1)",
    "execute {p}",
    "execute {p} ({k})",
    "deallocate {p}",
    "deallocate all",
)
_TABLES: Final = (
    "create table made (id int)",
    "insert into made values ({k})",
    "select count(*) from made",
    "drop table made",
    "drop table if exists made",
    "create temp table brief (id int) on commit drop",
    "create temp table brief (id int) on commit delete rows",
    "create temp table brief (id int)",
    "insert into brief values ({k})",
    "select count(*) from brief",
    "drop table brief",
    "truncate items",
)
_SIGNALS: Final = (
    "listen news",
    "unlisten news",
    "unlisten *",
    "notify news, '{k}'",
    "select pg_notify('news', '{k}')",
)
_ALL: Final = (
    (_CONTROL, 30),
    (_DATA, 30),
    (_DEFERRED, 8),
    (_SETTINGS, 10),
    (_CURSORS, 10),
    (_NAMES, 6),
    (_TABLES, 6),
    (_SIGNALS, 5),
)


class Generator:
    """Makes scripts.

    Args:
        seed: What they depend on.
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._steps: list[Step] = []

    def script(self, title: str, length: int = 12) -> Script:
        """Return the next script, of about *length* units."""
        self._steps = []
        for _ in range(self._random.randint(2, length)):
            self._random.choices([self._simple, self._several, self._pipeline, self._copy], [50, 15, 30, 5])[0]()
        self._say("Q", "select count(*) from items")
        return Script(title, self._steps)

    def _say(self, kind: str, rest: str = "", *, holds: bool = False) -> None:
        self._steps.append(Step("A", kind, rest, holds))

    def _sql(self) -> str:
        groups, weights = zip(*_ALL, strict=True)
        template: str = self._random.choice(self._random.choices(groups, weights)[0])
        pick = self._random.choice
        return template.format(k=self._random.randint(1, 9), s=pick("ab"), c=pick("cd"), p=pick("pq"))

    def _simple(self) -> None:
        self._say("Q", self._sql())

    def _several(self) -> None:
        self._say("Q", "; ".join(self._sql() for _ in range(self._random.randint(2, 4))))

    def _copy(self) -> None:
        if self._random.random() < 0.3:
            self._say("P", "- copy items (id) from stdin")
            self._say("B", "- -")
            self._say("E", "-")
            self._say("S")
            self._copy_data()
            self._say("S")
        else:
            self._say("Q", self._random.choice(["", "", "insert into items (id) values (8); "]) + self._copy_text())
            self._copy_data()

    def _copy_text(self) -> str:
        return "copy items (id) from stdin" + self._random.choice(["", "", "; select 1", "; commit", "; select 1/0"])

    def _copy_data(self) -> None:
        for _ in range(self._random.randint(0, 2)):
            self._say("d", self._random.choice(["{k}\\n", "{k}\\n", "x\\n"]).format(k=self._random.randint(1, 9)))
        self._say(*self._random.choice([("c", ""), ("c", ""), ("f", "no")]))

    def _pipeline(self) -> None:
        for _ in range(self._random.randint(1, 4)):
            self._statement()
            if self._random.random() < 0.1:
                self._say("H")
        self._say("S")

    def _statement(self) -> None:
        """Say a part of Parse, Describe, Bind, Describe, Execute and Close; what is left out is had from before."""
        chance, pick = self._random.random, self._random.choice
        name, portal = pick("--st"), pick("---c")
        if chance() < 0.85:
            self._say("P", f"{name} {self._sql()}")
        if chance() < 0.2:
            self._say("D", f"s {name}")
        if chance() < 0.9:
            self._say("B", f"{portal} {name}")
        else:
            portal = "c"  # the server may have an unnamed one left by a query that failed
        if chance() < 0.3:
            self._say("D", f"p {portal}")
        if chance() < 0.9:
            self._say("E", f"{portal} {pick([0, 0, 0, 1, 2])}")
        if chance() < 0.1:
            self._say("C", pick([f"s {name}", f"p {portal}"]))


def shortest(script: Script, fails: Callable[[Script], bool]) -> Script:
    """Return *script* without the steps that it fails without; it still ends in what is answered."""
    at = len(script.steps)
    while at:
        at -= 1
        shorter = Script(script.title, script.steps[:at] + script.steps[at + 1 :])
        if shorter.steps and shorter.steps[-1].kind in "QS" and fails(shorter):
            script = shorter
            at = min(at, len(script.steps))
    return script
