"""The simulated run: nothing lost or doubled whatever fails; two runs never both get a folder, in any order."""

import itertools
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen import commit, simulate
from datagen.commit import RunIdentity, start_run
from datagen.memory import MemoryFolder, StoreModel
from datagen.simulate import Scenario
from fonts_manifest.errors import BadInput

CALM = Scenario(
    shards=300,
    workers=20,
    shard_s=30,
    worker_mtbf_h=1e9,
    driver_mtbf_h=1e9,
    poisoned=0.0,
    shard_sigma=0.0,
    request_s=0,
    upload_s=0,
)


def test_without_failures_the_makespan_is_the_ideal_and_nothing_is_lost() -> None:
    outcome = simulate.simulate(CALM)
    assert outcome.makespan_h == pytest.approx(outcome.ideal_h) == pytest.approx(300 * 30 / 20 / 3600)
    assert (outcome.lost_h, outcome.worker_failures, outcome.driver_failures, outcome.rewrites) == (0, 0, 0, 0)
    # A kept file, a rejected one and a record of each shard; identity and claim; manifest and _SUCCESS.
    assert outcome.put_requests == 3 * 300 + 4


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    worker_mtbf_h=st.floats(0.01, 1),
    driver_mtbf_h=st.floats(0.01, 1),
    zombies=st.floats(0, 1),
    poisoned=st.floats(0, 0.2),
    request_s=st.floats(0, 2),
)
def test_whatever_fails_nothing_is_lost_or_doubled(seed: int, **failures: float) -> None:
    scenario = Scenario(shards=120, workers=8, seed=seed, **failures)
    outcome = simulate.simulate(scenario)
    assert (outcome.lost_rows, outcome.doubled_rows, outcome.conflicting_writes) == (0, 0, 0)
    assert outcome == simulate.simulate(scenario)


def test_failures_cost_what_they_interrupt() -> None:
    scenario = replace(
        CALM, shards=4000, worker_mtbf_h=1.0, driver_mtbf_h=0.5, poisoned=0.01, zombies=0.3, upload_s=2.0
    )
    outcome = simulate.simulate(scenario)
    assert outcome.worker_failures > 50
    assert outcome.driver_failures >= 2
    assert outcome.shards_with_care >= 20
    assert outcome.rewrites > 0
    # On the average half a shard for each failure of a worker, and half of what is in flight for the driver's.
    expected_h = (outcome.worker_failures + 20 * outcome.driver_failures) * 15 / 3600
    assert outcome.lost_h == pytest.approx(expected_h, rel=0.5)
    # One listing a start: 4,000 records are four or five answers, and one of the claims and one at the end.
    assert outcome.list_requests <= 5 * (outcome.driver_failures + 2) + 1


def test_a_store_that_changes_what_it_was_given_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()
    honest = simulate.simulated_shard

    def drifting(scenario: Scenario, shard: int) -> object:
        return honest(scenario, shard + (10_000 if next(calls) % 50 == 49 else 0))

    monkeypatch.setattr(simulate, "simulated_shard", drifting)
    outcome = simulate.simulate(replace(CALM, worker_mtbf_h=0.05, zombies=1.0, upload_s=2.0))
    assert outcome.conflicting_writes > 0
    assert outcome.lost_rows > 0


class SteppedFolder(MemoryFolder):
    """Waits for its turn before every operation."""

    def __init__(self, store: StoreModel, turns: "Turns", number: int) -> None:
        super().__init__(store)
        object.__setattr__(self, "turns", turns)
        object.__setattr__(self, "number", number)

    def before(self, operation: str, path: str) -> None:
        self.turns.take(self.number)


class Turns:
    """Hands the turn from one to the other as a schedule says; whoever is left alone goes on alone."""

    def __init__(self, schedule: tuple[int, ...]) -> None:
        self._schedule = list(schedule)
        self._over: set[int] = set()
        self._changed = threading.Condition()

    def take(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._turn() in (number, None))
            if self._schedule:
                self._schedule.pop(0)
            self._changed.notify_all()

    def end(self, number: int) -> None:
        with self._changed:
            self._over.add(number)
            self._changed.notify_all()

    def _turn(self) -> int | None:
        while self._schedule and self._schedule[0] in self._over:
            self._schedule.pop(0)
        return self._schedule[0] if self._schedule else None


def race(schedule: tuple[int, ...]) -> list[bool]:
    """Which of two runs with other recipes got the folder, their steps interleaved by the schedule."""
    store, turns, won = StoreModel(), Turns(schedule), [False, False]

    def start(number: int) -> None:
        try:
            start_run(SteppedFolder(store, turns, number), RunIdentity(recipe_hash=str(number) * 16, shards=1))
            won[number] = True
        except BadInput:
            pass
        finally:
            turns.end(number)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won


def all_schedules(steps: int) -> list[tuple[int, ...]]:
    """Every interleaving of two runs of so many steps."""
    places = itertools.combinations(range(2 * steps), steps)
    return [tuple(int(place in chosen) for place in range(2 * steps)) for chosen in map(set, places)]


def test_of_two_recipes_at_most_one_gets_the_folder_in_every_order_of_steps() -> None:
    # Looking, claiming, listing the claims, looking again, writing, withdrawing the claim.
    outcomes = [race(schedule) for schedule in all_schedules(6)]
    assert len(outcomes) == 924
    assert max(map(sum, outcomes)) == 1
    assert sum(map(sum, outcomes)) > 300  # most orders have a winner


def test_without_claims_some_order_gives_the_folder_to_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def trusting(folder: MemoryFolder, identity: bytes) -> None:
        folder.publish(commit.RUN, identity)

    monkeypatch.setattr(commit, "_claim", trusting)
    assert max(sum(race(schedule)) for schedule in all_schedules(3)) == 2
