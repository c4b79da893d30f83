"""
Which backend a client is sent to, and when a dead one is asked again.
"""

from hypothesis import given
from hypothesis import strategies as st

from tlsgate.net.pool import RETRY_SECONDS_MAX, Pool, Spread

KEYS = ("a", "b", "c")


def pool(spread: Spread = Spread.ORDER, probe_seconds: float = 0.0) -> Pool[str]:
    return Pool(KEYS, spread, probe_seconds)


class TestOrder:
    def test_the_first_is_always_preferred(self) -> None:
        backends = pool()
        backends.session_started("a")
        backends.session_started("a")
        assert backends.candidates() == ["a", "b", "c"]

    def test_a_dead_one_is_left_out(self) -> None:
        backends = pool()
        assert backends.failed("a", 0.0)
        assert backends.candidates() == ["b", "c"]
        assert not backends.up("a")

    def test_one_that_is_back_takes_its_old_place(self) -> None:
        backends = pool()
        backends.failed("a", 0.0)
        assert backends.succeeded("a", 1.0)
        assert backends.candidates() == ["a", "b", "c"]


class TestLeastSessions:
    def test_the_least_busy_comes_first_and_the_others_behind(self) -> None:
        backends = pool(Spread.LEAST_SESSIONS)
        for key in ("a", "a", "b"):
            backends.session_started(key)
        assert backends.candidates() == ["c", "b", "a"]

    def test_equals_take_turns(self) -> None:
        """
        Sessions that follow one another, never two at a time, must not all go to the first backend.
        """
        backends = pool(Spread.LEAST_SESSIONS)
        chosen = []
        for _ in range(6):
            key = backends.candidates()[0]
            backends.session_started(key)
            backends.session_ended(key)
            chosen.append(key)
        assert chosen == ["a", "b", "c", "a", "b", "c"]

    def test_a_dead_one_is_left_out_however_idle(self) -> None:
        backends = pool(Spread.LEAST_SESSIONS)
        backends.session_started("b")
        backends.failed("a", 0.0)
        assert backends.candidates() == ["c", "b"]

    def test_sessions_are_counted_while_a_backend_is_down(self) -> None:
        backends = pool(Spread.LEAST_SESSIONS)
        backends.session_started("a")
        backends.failed("a", 0.0)
        backends.succeeded("a", 1.0)
        assert backends.sessions("a") == 1
        assert backends.candidates() == ["b", "c", "a"]


class TestWhileNoneIsUp:
    def test_there_is_nobody_to_try(self) -> None:
        backends = pool()
        for key in KEYS:
            assert backends.any_up
            backends.failed(key, 0.0)
        assert not backends.any_up
        assert backends.candidates() == []

    def test_one_is_enough(self) -> None:
        backends = pool()
        for key in KEYS:
            backends.failed(key, 0.0)
        backends.succeeded("c", 1.0)
        assert backends.any_up
        assert backends.candidates() == ["c"]


class TestProbes:
    def test_a_dead_one_is_asked_after_1_2_4_seconds_and_then_every_60(self) -> None:
        backends = pool()
        now = 100.0
        backends.failed("b", now)
        waited = []
        for _ in range(9):
            start = now
            while not (due := backends.due_for_probe(now)):
                now += 0.5
            assert due == ["b"]
            waited.append(now - start)
            backends.failed("b", now)
        assert waited == [1, 2, 4, 8, 16, 32, 60, 60, 60]

    def test_success_starts_the_back_off_anew(self) -> None:
        backends = pool()
        for now in (0.0, 1.0, 3.0):
            backends.failed("a", now)
            backends.due_for_probe(now + 60)
        backends.succeeded("a", 100.0)
        backends.failed("a", 100.0)
        assert backends.due_for_probe(100.9) == []
        assert backends.due_for_probe(101.0) == ["a"]

    def test_a_probe_is_not_started_twice(self) -> None:
        backends = pool()
        backends.failed("a", 0.0)
        assert backends.due_for_probe(1.0) == ["a"]
        assert backends.due_for_probe(1000.0) == []

    def test_late_news_of_old_dials_does_not_prolong_the_back_off(self) -> None:
        """
        A hundred sessions may be dialling when a backend dies; it was down once, not a hundred times.
        """
        backends = pool()
        assert backends.failed("a", 0.0)
        for _ in range(100):
            assert not backends.failed("a", 0.5)
        assert backends.due_for_probe(1.0) == ["a"]

    def test_one_that_is_up_is_not_asked_unless_it_should_be(self) -> None:
        assert pool().due_for_probe(1e9) == []

    def test_ones_that_are_up_are_asked_from_time_to_time(self) -> None:
        backends = pool(probe_seconds=30)
        assert backends.due_for_probe(0.0) == ["a", "b", "c"]
        backends.succeeded("a", 0.1)
        backends.failed("b", 0.1)
        assert backends.due_for_probe(1.0) == []
        assert backends.due_for_probe(1.1) == ["b"]
        assert backends.due_for_probe(30.0) == []
        assert backends.due_for_probe(30.1) == ["a"]

    def test_a_clients_session_is_as_good_as_a_probe(self) -> None:
        backends = pool(probe_seconds=30)
        for key in KEYS:
            backends.succeeded(key, 20.0)
        assert backends.due_for_probe(49.9) == []
        assert backends.due_for_probe(50.0) == ["a", "b", "c"]

    def test_one_in_doubt_is_asked_at_once_and_has_clients_until_it_answers(self) -> None:
        backends = pool()
        backends.doubted("a", 10.0)
        assert backends.candidates() == ["a", "b", "c"]
        assert backends.due_for_probe(10.0) == ["a"]
        backends.doubted("a", 10.1)
        assert backends.due_for_probe(11.0) == []
        assert backends.failed("a", 11.0)
        assert backends.candidates() == ["b", "c"]

    def test_doubt_is_over_when_it_has_answered(self) -> None:
        backends = pool()
        backends.doubted("a", 10.0)
        assert not backends.succeeded("a", 10.1)
        assert backends.due_for_probe(1e9) == []

    def test_one_that_is_down_anyway_is_not_asked_sooner(self) -> None:
        backends = pool()
        backends.failed("a", 10.0)
        backends.doubted("a", 10.0)
        assert backends.due_for_probe(10.9) == []

    def test_only_changes_are_reported(self) -> None:
        backends = pool()
        assert not backends.succeeded("a", 0.0)
        assert backends.failed("a", 0.0)
        backends.due_for_probe(1.0)
        assert not backends.failed("a", 1.0)
        assert backends.succeeded("a", 3.0)
        assert not backends.succeeded("a", 3.0)


@given(
    st.sampled_from(Spread),
    st.sampled_from([0.0, 30.0]),
    st.lists(
        st.tuples(
            st.sampled_from(["failed", "succeeded", "started", "ended", "probes"]),
            st.sampled_from(KEYS),
            st.floats(0, 50),
        ),
        max_size=60,
    ),
)
def test_whatever_happens(spread: Spread, probe_seconds: float, happening: list[tuple[str, str, float]]) -> None:
    """
    Candidates are exactly those whose last news was good, each once; and a dead one is due within 60 s of its failure.
    """
    backends = pool(spread, probe_seconds)
    good = dict.fromkeys(KEYS, True)
    sessions = dict.fromkeys(KEYS, 0)
    now = 0.0
    for what, key, later in happening:
        now += later
        match what:
            case "failed":
                backends.failed(key, now)
                good[key] = False
            case "succeeded":
                backends.succeeded(key, now)
                good[key] = True
            case "started":
                backends.session_started(key)
                sessions[key] += 1
            case "ended" if sessions[key]:
                backends.session_ended(key)
                sessions[key] -= 1
            case "probes":
                for due in backends.due_for_probe(now):
                    backends.failed(due, now)
                    good[due] = False
        candidates = backends.candidates()
        assert sorted(candidates) == [key for key in KEYS if good[key]]
        assert backends.any_up == bool(candidates)
        assert {key: backends.sessions(key) for key in KEYS} == sessions
        if spread is Spread.LEAST_SESSIONS:
            assert [sessions[key] for key in candidates] == sorted(sessions[key] for key in candidates)
    dead = {key for key in KEYS if not good[key]}
    assert dead <= set(backends.due_for_probe(now + RETRY_SECONDS_MAX))
