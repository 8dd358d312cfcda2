"""Runs scripts of protocol messages against PostgreSQL and through the sandbox, and compares every byte of the answers.

``python -m tests.integration.sandbox.differential [file or title ...]`` runs the corpus, or the part of it that is
named, and prints how many scripts and messages were compared and how they differ. ``--random 1000 --seed 7`` runs as
many random scripts instead, and prints the shortest part of each that differs. ``--own`` runs them through the sandbox
in databases of their own, where nothing may differ at all.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.address import Address

from .generator import Generator, shortest
from .scripts import Normaliser, Script, Step, read, show, split
from .stage import PASSWORD, Stage, StagedSandbox, running, started

CORPUS: Final = Path(__file__).parent / "corpus"

#: Seconds after which an answer is taken to be missing. It is a difference of its own, not a measure of speed.
PATIENCE: Final = 10.0
_NO_ANSWER: Final = wire.error("", f"no answer in {PATIENCE:.0f} seconds")


class Conversation:
    """One client's connection, and what it has heard.

    Args:
        address: Where to connect.
        letter: What the script calls it.
        more: Parameters of its start-up packet, besides role and database.
    """

    def __init__(self, address: Address, letter: str, more: dict[str, str]) -> None:
        self.letter = letter
        self._heard = bytearray()
        self._unanswered: list[str] = []
        self._unsent = bytearray()
        self._copies_for_query = False
        self._is_skipped = False  # until Sync, after an error
        self._socket = _open(address)
        protocol = int(more.pop("protocol", wire.PROTOCOL_3_0))
        self._socket.sendall(wire.startup({"user": address.user, "database": address.database, **more}, protocol))
        self.greeting = list(self._until(self._authenticated))

    def _authenticated(self, message: bytes) -> bool:
        if message[:1] == b"R" and wire.int32(message, 5) == 3:
            self._socket.sendall(wire.message(b"p", PASSWORD.encode() + b"\0"))
        return message[:1] in b"ZE"

    @property
    def pid(self) -> bytes:
        """The process id that the server gave it."""
        return next((message[5:9] for message in self.greeting if message[:1] == b"K"), b"")

    def do(self, step: Step) -> list[bytes]:
        """Send a step's message, and return the answers it waits for."""
        if step.kind == "wait":
            return list(self._until(lambda message: chr(message[0]) == step.rest))
        self._unsent += step.data
        self._unanswered += [step.ends] if step.ends else []
        if step.holds or step.kind in {*"PBDCEd", "raw"}:
            return []
        with suppress(OSError):  # that the connection is closed will be read
            self._socket.sendall(self._unsent)
        self._unsent.clear()
        if step.kind == "X" or (step.kind in "cf" and not self._copies_for_query):
            return []
        if step.kind == "H":
            if self._is_skipped:
                self._unanswered.clear()
            return list(self._until(self._is_flushed)) if self._unanswered else []
        heard = list(self._until(lambda message: message[:1] in {b"Z", b"G"}))
        self._unanswered.clear()
        self._is_skipped = False
        self._copies_for_query = step.kind != "S" and heard[-1][:1] == b"G"
        return heard

    def send(self, data: bytes) -> None:
        """Send bytes and wait for nothing."""
        self._socket.sendall(data)

    def _is_flushed(self, message: bytes) -> bool:
        kind = chr(message[0])
        if kind == "E":
            self._unanswered.clear()
            self._is_skipped = True
        elif kind in self._unanswered[0]:
            self._unanswered.pop(0)
        return not self._unanswered

    def _until(self, is_last: Callable[[bytes], bool]) -> Iterator[bytes]:
        while True:
            while (message := self._take()) is not None:
                yield message
                if is_last(message):
                    return
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                yield _NO_ANSWER
                return
            except OSError:
                data = b""
            if not data:
                yield wire.error("", "connection closed")
                return
            self._heard += data

    def _take(self) -> bytes | None:
        if len(self._heard) < 5:
            return None
        end = 1 + wire.int32(self._heard, 1)
        if len(self._heard) < end:
            return None
        message = bytes(self._heard[:end])
        del self._heard[:end]
        return message

    def close(self) -> list[bytes]:
        """End the conversation; return what had been sent unasked."""
        rest: list[bytes] = []
        with self._socket:
            try:
                self._socket.sendall(self._unsent + wire.TERMINATE)
                while data := self._socket.recv(1 << 16):
                    self._heard += data
            except OSError:
                pass
        rest += split(bytes(self._heard))
        return rest


def _open(address: Address) -> socket.socket:
    if address.is_socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(f"{address.host}/.s.PGSQL.{address.port}")
    else:
        sock = socket.create_connection((address.host, address.port))
    sock.settimeout(PATIENCE)
    return sock


def perform(script: Script, address: Address) -> list[list[bytes]]:
    """Run *script* on the database *address*.

    Returns:
        Normalised messages: the clients' greetings, then the answers to each step, then what came unasked in the end.
    """
    normaliser = Normaliser()
    clients: dict[str, Conversation] = {}
    answers: list[list[bytes]] = []
    greetings: list[bytes] = []
    with ExitStack() as stack:
        for step in script.steps:
            heard: list[bytes] = []
            client = clients.get(step.client)
            if client is None or step.kind == "connect":
                more = dict(pair.split("=", 1) for pair in step.rest.split("\n")) if step.kind == "connect" else {}
                client = clients[step.client] = Conversation(address, step.client, more)
                stack.callback(client.close)
                normaliser.knows(client.pid, step.client)
                greetings += normaliser.apply(client.greeting)
            if step.kind != "connect":
                heard += client.do(step)
            answers.append(normaliser.apply(heard))
        rest = [normaliser.apply(client.close()) for _, client in sorted(clients.items())]
    return [greetings, *answers, [message for each in rest for message in each]]


@dataclass(slots=True)
class Result:
    """What a comparison found.

    Args:
        scripts: How many scripts were run.
        messages: How many messages of the server were compared.
        differences: A text for each script whose answers differ.
    """

    scripts: int = 0
    messages: int = 0
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.scripts} scripts, {self.messages} messages compared, {len(self.differences)} differences"


class Comparison:
    """The two places where a script is run.

    Args:
        stage: Where clones are made for the server's own answers.
        sandbox: A sandbox on another clone; each script has a frame of its own.
        has_own: Whether each has a database of its own instead.
    """

    def __init__(self, stage: Stage, sandbox: StagedSandbox, *, has_own: bool = False) -> None:
        self.result = Result()
        self._has_own = has_own
        self._stage = stage
        self._sandbox = sandbox

    def run(self, script: Script) -> str:
        """Run *script* in both and count it; return how the answers differ, empty if they do not."""
        difference = self.compare(script)
        self.result.scripts += 1
        if difference:
            self.result.differences.append(difference)
        return difference

    def compare(self, script: Script) -> str:
        """Run *script* in both; return how the answers differ, empty if they do not."""
        with self._stage.clone() as database:
            wanted = perform(script, database)
        got = self._in_own(script) if self._has_own else self._in_shared(script)
        self.result.messages += sum(map(len, wanted))
        return _difference(script, wanted, got, as_expected=not self._has_own)

    def _in_shared(self, script: Script) -> list[list[bytes]]:
        self._sandbox.push(script.title)
        try:
            return perform(script, self._sandbox.address)
        finally:
            self._sandbox.pop()

    def _in_own(self, script: Script) -> list[list[bytes]]:
        with self._stage.clone() as database:
            self._sandbox.handle.use_database(database, script.title)
            try:
                return perform(script, self._sandbox.address)
            finally:
                self._sandbox.handle.use_database(None, script.title)


def _difference(script: Script, wanted: list[list[bytes]], got: list[list[bytes]], *, as_expected: bool) -> str:
    lines: list[str] = []
    steps = ["connecting", *script.steps, "at the end"]
    is_different = False
    for step, theirs, ours in zip(steps, wanted, got, strict=True):
        lines.append(f"  {step}")
        if as_expected and isinstance(step, Step) and step.expected:
            shown = [show(message) for message in ours]
            same = len(shown) == len(step.expected) and all(map(str.startswith, shown, step.expected))
            lines += [] if same else [f"    expected: {line}" for line in step.expected]
            lines += [] if same else [f"    sandbox:  {line}" for line in shown]
        else:
            same = theirs == ours and _NO_ANSWER not in theirs  # a step that waits in vain is a mistake in the script
            lines += [] if same else [f"    server:   {show(message)}" for message in theirs]
            lines += [] if same else [f"    sandbox:  {show(message)}" for message in ours]
        is_different |= not same
    return "\n".join([f"== {script.title}", *lines]) if is_different else ""


@contextmanager
def comparison(*, has_own: bool = False) -> Iterator[Comparison]:
    """Start a server and a sandbox to compare; with *has_own* each script has a database of its own."""
    with started() as stage, stage.clone() as database, running(database) as sandbox:
        yield Comparison(stage, sandbox, has_own=has_own)


def corpus() -> list[tuple[str, Script]]:
    """Return the scripts of the corpus, each with the name of its file."""
    return [(path.stem, script) for path in sorted(CORPUS.glob("*.txt")) for script in read(path.read_text())]


def run_random(both: Comparison, number: int, seed: int) -> Iterator[str]:
    """Run *number* random scripts; yield how the shortest part of each that differs does so."""
    for at in range(seed, seed + number):
        script = Generator(at).script(f"random script {at}")
        if both.run(script):
            yield both.compare(shortest(script, lambda part: bool(both.compare(part))))


def main(arguments: Sequence[str]) -> int:
    """Run the corpus or random scripts; return an exit code."""
    parser = argparse.ArgumentParser(description="Compare PostgreSQL and the sandbox message by message.")
    parser.add_argument("words", nargs="*", help="parts of the names of files or titles; by default all are run")
    parser.add_argument("--random", type=int, metavar="N", help="run N random scripts instead")
    parser.add_argument("--seed", type=int, default=1, help="the first of the random scripts (default 1)")
    parser.add_argument("--own", action="store_true", help="give each script a database of its own")
    given = parser.parse_args(arguments)
    chosen = [s for file, s in corpus() if not given.words or any(w in file or w in s.title for w in given.words)]
    with comparison(has_own=given.own) as both:
        found = run_random(both, given.random, given.seed) if given.random else map(both.run, chosen)
        for difference in filter(None, found):
            print(difference, flush=True)
        print(both.result)
    return 1 if both.result.differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
