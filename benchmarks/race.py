"""The suites of all contestants, who take turns; and what is read off their runs. One run serves several tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.contestants import KINDS, NO_DATABASE, THIS, Contestant, Kind
from benchmarks.environments import Environments, Unavailable
from benchmarks.stats import Figure
from benchmarks.suite import Conditions, Outcome, run, run_warm, why_invalid


@dataclass(slots=True)
class Results:
    """What came out, by contestant's name and kind of suite.

    Args:
        tests: The size of the suites.
        contestants: Who took part, in the order of the tables.
        outcomes: The outcome of each round; who is slow or fails runs in the first one only, but for chatdify-db.
        bodies: Seconds of a test's body on an open, warm session, one for each outcome.
        absent: Why a contestant did not run.
    """

    tests: int
    contestants: Sequence[Contestant]
    outcomes: dict[tuple[str, Kind], list[Outcome]] = field(default_factory=dict)
    bodies: dict[tuple[str, Kind], list[float]] = field(default_factory=dict)
    absent: dict[tuple[str, Kind], str] = field(default_factory=dict)

    @property
    def first_tests(self) -> int:
        """How many tests count as warming up: 100 of 500."""
        return max(self.tests // 5, 1)

    def of(self, contestant: Contestant, kind: Kind) -> list[Outcome]:
        """Return the outcomes of *contestant*, one for each round it ran in."""
        return self.outcomes.get((contestant.name, kind), [])

    def is_valid(self, contestant: Contestant, kind: Kind) -> bool:
        """Whether *contestant* ran the suite and all its tests passed."""
        outcomes = self.of(contestant, kind)
        return bool(outcomes) and all(outcome.is_valid for outcome in outcomes)

    def is_complete(self, contestant: Contestant, kind: Kind) -> bool:
        """Whether all tests ran, so that nothing is extrapolated."""
        return all(outcome.is_complete for outcome in self.of(contestant, kind))

    def fails(self, contestant: Contestant) -> bool:
        """Return whether *contestant* ran a suite and did not pass it."""
        return any(not self.is_valid(contestant, kind) for name, kind in self.outcomes if name == contestant.name)

    def why_not(self, contestant: Contestant, kind: Kind) -> str:
        """Return why *contestant* has no valid outcome."""
        absent = self.absent.get((contestant.name, kind))
        if absent is not None:
            return absent
        return why_invalid(self.of(contestant, kind))

    def seconds(self, contestant: Contestant, kind: Kind, tests: int) -> list[float]:
        """Return how long the first *tests* took, in each round."""
        return [outcome.seconds_of(tests) for outcome in self.of(contestant, kind)]

    def relative(self, contestant: Contestant, kind: Kind) -> Figure | None:
        """Return the time of the whole suite over chatdify-db's in the same round; None if either is not valid."""
        if not (self.is_valid(contestant, kind) and self.is_valid(THIS, kind)):
            return None
        return Figure.ratio(self.seconds(contestant, kind, self.tests), self.seconds(THIS, kind, self.tests))

    def each(self, contestant: Contestant, kind: Kind) -> list[float]:
        """Return the seconds of one test with set-up and tear-down, in each round."""
        return [outcome.seconds_each(self.first_tests) for outcome in self.of(contestant, kind)]

    def around(self, contestant: Contestant, kind: Kind) -> list[float]:
        """Return the seconds of a test's set-up and tear-down beyond those of pytest by itself, in each round."""
        if not (self.is_valid(contestant, kind) and self.is_valid(NO_DATABASE, kind)):
            return []
        own, bare = (
            [outcome.seconds_around(self.first_tests) for outcome in self.of(each, kind)]
            for each in (contestant, NO_DATABASE)
        )
        return [mine - least for mine, least in zip(own, bare, strict=False)]

    def beyond_body(self, contestant: Contestant, kind: Kind) -> list[float]:
        """Return the seconds of one test less those of its body on an open, warm session, in each round."""
        bodies = self.bodies.get((contestant.name, kind), ())
        return [each - body for each, body in zip(self.each(contestant, kind), bodies, strict=False)]

    def overheads(self, contestant: Contestant, kind: Kind) -> list[float]:
        """Return what a test costs beyond its body and beyond what pytest costs by itself, in each round.

        That is everything which the contestant does before, after and around a body that has an open, warm session.
        """
        if not (self.is_valid(contestant, kind) and self.is_valid(NO_DATABASE, kind)):
            return []
        pairs = zip(self.beyond_body(contestant, kind), self.beyond_body(NO_DATABASE, kind), strict=False)
        return [own - bare for own, bare in pairs]


def race(
    contestants: Sequence[Contestant],
    *,
    tests: int,
    rounds: int,
    environments: Environments,
    conditions: Conditions,
    progress: Callable[[str], None],
    kinds: Sequence[Kind] = KINDS,
) -> Results:
    """Let *contestants* run the suites *kinds* in turns.

    Args:
        contestants: Who takes part.
        tests: How many tests each suite has.
        rounds: How many turns each has.
        environments: Where they run.
        conditions: Under which conditions.
        progress: Takes a line of news.
        kinds: Which suites.
    """
    results = Results(tests, contestants)
    for turn in range(rounds):
        for kind in kinds:
            for contestant in contestants:
                if turn and not _goes_on(results, contestant, kind):
                    continue
                progress(f"round {turn + 1} of {rounds}, {kind}: {contestant.name}")
                _take_turn(results, contestant, kind, environments, conditions)
    return results


def _goes_on(results: Results, contestant: Contestant, kind: Kind) -> bool:
    """Return whether *contestant* takes another turn: all others are measured by the first one."""
    is_quick = contestant is THIS or results.is_complete(contestant, kind)
    return is_quick and results.is_valid(contestant, kind)


def _take_turn(
    results: Results, contestant: Contestant, kind: Kind, environments: Environments, conditions: Conditions
) -> None:
    key = (contestant.name, kind)
    if kind in contestant.cannot:
        results.absent[key] = contestant.cannot[kind]
        return
    try:
        python = environments.python_of(contestant)
    except Unavailable as error:
        results.absent[key] = str(error)
        return
    outcome = run(contestant, (kind,), results.tests, python, conditions)
    results.outcomes.setdefault(key, []).append(outcome)
    if outcome.is_valid and kind != "both":
        body = run_warm(contestant, kind, python, conditions).body
        if body is not None:
            results.bodies.setdefault(key, []).append(body)
