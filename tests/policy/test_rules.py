"""
The first rule that matches names the level; each stage refuses what becomes known at it, and nothing else.
"""

from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policy import samples
from tests.policy.samples import NOW, VERIFIED, circumstances, with_certificate
from tlsgate.policy.errors import PolicyError
from tlsgate.policy.facts import Circumstances, TlsFacts
from tlsgate.policy.level import BUILT_IN, ClientCertificate, Level, Tls
from tlsgate.policy.ramp import Ramp
from tlsgate.policy.rules import ANY_LISTENER, Decision, Outcome, Rule, Rulebook

OFFERED, REQUIRED, STRONG, WITH_CLIENT = (BUILT_IN[name] for name in ("offered", "required", "strong", "verified"))
STAGES: list[Callable[[Rulebook, Circumstances, TlsFacts | None], Decision]] = [
    Rulebook.session,
    Rulebook.sender,
    Rulebook.recipient,
]

EVERYTHING_KNOWN = {
    "helo": "mail.partner.example",
    "sni": "mx.example.org",
    "sender": "joe@partner.example",
    "recipient": "jane@clinic.example",
}


@pytest.mark.parametrize(
    ("conditions", "known", "matches"),
    [
        ({}, {}, True),
        ({"listeners": ["mx"]}, {}, True),
        ({"listeners": ["submission", "mx"]}, {}, True),
        ({"listeners": ["submission"]}, {}, False),
        ({"clients": [ip_network("192.0.2.0/24")]}, {}, True),
        ({"clients": [ip_network("198.51.100.0/24"), ip_network("192.0.2.7/32")]}, {}, True),
        ({"clients": [ip_network("198.51.100.0/24")]}, {}, False),
        ({"clients": [ip_network("2001:db8::/32")]}, {}, False),
        ({"clients": [ip_network("2001:db8::/32")]}, {"client": IPv6Address("2001:db8::1")}, True),
        ({"clients": [ip_network("192.0.2.0/24")]}, {"client": IPv6Address("::ffff:192.0.2.7")}, True),
        ({"clients": [ip_network("0.0.0.0/0"), ip_network("::/0")]}, {"client": None}, False),
        ({"helos": ["*.partner.example"]}, {"helo": "Mail.Partner.example"}, True),
        ({"helos": ["*.partner.example"]}, {"helo": "partner.example"}, False),
        ({"helos": ["[192.0.2.7]"]}, {"helo": "[192.0.2.7]"}, True),
        ({"snis": ["mx.example.org"]}, {"sni": "MX.example.org"}, True),
        ({"snis": ["mx.example.org"]}, {"sni": ""}, False),
        ({"snis": ["<>"]}, {"sni": ""}, True),
        ({"snis": ["*"]}, {"sni": ""}, False),
        ({"senders": ["partner.example"]}, {"sender": "joe@PARTNER.example"}, True),
        ({"senders": ["partner.example", "<>"]}, {"sender": ""}, True),
        ({"senders": ["partner.example", "*"]}, {"sender": ""}, False),
        ({"senders": ["partner.example"]}, {"sender": '"joe@partner.example"@other.example'}, False),
        ({"recipients": ["clinic.example"]}, {"recipient": "@relay.example:jane@clinic.example"}, True),
        ({"recipients": ["clinic.example"]}, {"recipient": "@clinic.example:jane@other.example"}, False),
        ({"recipients": ["bücher.example"]}, {"recipient": "jane@xn--bcher-kva.example"}, True),
        ({"recipients": ["*"]}, {"recipient": "postmaster"}, True),
        ({"recipients": ["clinic.example"]}, {"recipient": "postmaster"}, False),
    ],
)
def test_a_condition_holds(conditions: dict[str, Any], known: dict[str, Any], matches: bool) -> None:  # noqa: FBT001
    assert Rule(STRONG, **conditions).matches(circumstances(**known)) == matches


CONDITIONS: dict[str, Any] = {
    "listeners": ["mx"],
    "clients": [ip_network("192.0.2.0/24")],
    "helos": ["mail.partner.example"],
    "snis": ["mx.example.org"],
    "senders": ["partner.example"],
    "recipients": ["clinic.example"],
}
OTHERWISE: dict[str, Any] = {
    "listener": "submission",
    "client": IPv4Address("198.51.100.1"),
    "helo": "other.example",
    "sni": "other.example",
    "sender": "joe@other.example",
    "recipient": "jane@other.example",
}


@pytest.mark.parametrize("fact", OTHERWISE)
def test_all_conditions_must_hold_and_an_unknown_fact_meets_none(fact: str) -> None:
    rule = Rule(STRONG, **CONDITIONS)
    met = circumstances(**EVERYTHING_KNOWN)
    assert rule.matches(met)
    assert not rule.matches(evolve(met, **{fact: OTHERWISE[fact]}))
    if fact != "listener":
        unknown: dict[str, Any] = {fact: None}
        assert not rule.matches(evolve(met, **unknown))


@pytest.mark.parametrize("key", ["helos", "snis", "senders", "recipients"])
def test_a_bad_pattern_is_reported_with_its_key(key: str) -> None:
    conditions: dict[str, Any] = {key: ["good.example", "b a d"]}
    with pytest.raises(PolicyError) as caught:
        Rule(STRONG, **conditions)
    assert caught.value.problems == {key: "'b a d': not a domain name, a *.domain, an [address], * or <>"}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("level", BUILT_IN.values(), ids=list(BUILT_IN))
@pytest.mark.parametrize("tls", [None, samples.TLS10, samples.TLS13, with_certificate(VERIFIED)], ids=str)
def test_without_rules_the_listeners_level_decides_at_every_stage(
    stage: Callable[[Rulebook, Circumstances, TlsFacts | None], Decision], level: Level, tls: TlsFacts | None
) -> None:
    verdict = level.judge(tls)
    expected = Decision(level, verdict, Outcome.PASS if verdict.sufficient else Outcome.REFUSE)
    for book in (Rulebook.single(level), Rulebook([], {"mx": level, "submission": WITH_CLIENT})):
        assert stage(book, circumstances(**EVERYTHING_KNOWN), tls) == expected


def test_listeners_have_levels_of_their_own_and_may_have_one_in_common() -> None:
    book = Rulebook([Rule(WITH_CLIENT, listeners=["smtps"])], {"mx": OFFERED, ANY_LISTENER: STRONG})
    levels = [book.session(circumstances(name), None).level for name in ("mx", "submission", "smtps")]
    assert levels == [OFFERED, STRONG, WITH_CLIENT]


def test_a_listener_nobody_bound_has_no_level() -> None:
    with pytest.raises(KeyError):
        Rulebook([], {"mx": OFFERED}).session(circumstances("submission"), None)


# A public host: partners with certificates, a clinic with TLS only, printers left alone, plaintext for the rest.
PARTNERS = Rule(WITH_CLIENT, clients=[ip_network("198.51.100.0/24")])
PRINTERS = Rule(OFFERED, clients=[ip_network("10.20.0.0/16")], listeners=["mx"])
BY_HELO = Rule(REQUIRED, helos=["*.tls.example"])
BY_SNI = Rule(STRONG, snis=["strict.example.org"])
BANK = Rule(STRONG, senders=["bank.example"])
CLINIC = Rule(REQUIRED, recipients=["clinic.example"])
BANK_TO_CLINIC = Rule(WITH_CLIENT, senders=["bank.example"], recipients=["clinic.example"])
PUBLIC = Rulebook(
    [PARTNERS, PRINTERS, BY_HELO, BY_SNI, BANK_TO_CLINIC, BANK, CLINIC], {"mx": OFFERED, "submission": STRONG}
)


@pytest.mark.parametrize(
    ("known", "session", "sender", "recipient"),
    [
        ({}, OFFERED, OFFERED, OFFERED),
        ({"listener": "submission"}, STRONG, STRONG, STRONG),
        ({"client": IPv4Address("198.51.100.9")}, WITH_CLIENT, WITH_CLIENT, WITH_CLIENT),
        ({"helo": "a.tls.example"}, REQUIRED, REQUIRED, REQUIRED),
        ({"sni": "strict.example.org"}, STRONG, STRONG, STRONG),
        ({"sender": "joe@bank.example"}, OFFERED, STRONG, STRONG),
        ({"sender": "joe@bank.example", "recipient": "x@clinic.example"}, OFFERED, STRONG, WITH_CLIENT),
        ({"sender": "", "recipient": "x@clinic.example"}, OFFERED, OFFERED, REQUIRED),
        ({"recipient": "x@other.example"}, OFFERED, OFFERED, OFFERED),
        ({"client": IPv4Address("10.20.1.1"), "recipient": "x@clinic.example"}, OFFERED, OFFERED, OFFERED),
    ],
)
def test_each_stage_looks_at_what_is_known_by_then(
    known: dict[str, Any], session: Level, sender: Level, recipient: Level
) -> None:
    """
    3207-23: the level depends on who sends to whom. What is known too early is not looked at.
    """
    levels = [stage(PUBLIC, circumstances(**known), None).level for stage in STAGES]
    assert levels == [session, sender, recipient]


def test_one_recipient_among_three_needs_tls() -> None:
    """
    The others are not refused for it.
    """
    assert PUBLIC.session(circumstances(), None).outcome is Outcome.PASS
    assert PUBLIC.sender(circumstances(sender="joe@a.example"), None).outcome is Outcome.PASS
    recipients = ["a@b.example", "jane@clinic.example", "b@b.example"]
    decisions = [PUBLIC.recipient(circumstances(sender="joe@a.example", recipient=who), None) for who in recipients]
    assert [decision.outcome for decision in decisions] == [Outcome.PASS, Outcome.REFUSE, Outcome.PASS]
    assert decisions[1].verdict.must_start_tls


@pytest.mark.parametrize(
    ("rules", "uses"),
    [
        ([], ()),
        ([PARTNERS], ()),
        ([BY_HELO], ("helo",)),
        ([BY_SNI], ("sni",)),
        ([BANK], ("sender",)),
        ([CLINIC], ("recipient",)),
        ([BANK_TO_CLINIC], ("sender", "recipient")),
        ([Rule(STRONG, helos=["a.example"], senders=["b.example"])], ("sender",)),
        ([BY_HELO, BY_SNI, BANK, CLINIC], ("helo", "sni", "sender", "recipient")),
        ([Rule(STRONG, listeners=["submission"], helos=["a"], snis=["a"], senders=["a"], recipients=["a"])], ()),
    ],
)
def test_the_book_knows_which_facts_can_change_a_decision(rules: list[Rule], uses: tuple[str, ...]) -> None:
    book = Rulebook(rules, {"mx": OFFERED, "submission": OFFERED})
    asked = {
        "helo": book.uses_helo("mx"),
        "sni": book.uses_sni("mx"),
        "sender": book.uses_sender("mx"),
        "recipient": book.uses_recipient("mx"),
    }
    assert tuple(fact for fact, used in asked.items() if used) == uses


def test_the_book_knows_which_levels_may_hold_at_a_listener() -> None:
    book = Rulebook([PRINTERS, BANK, Rule(WITH_CLIENT, listeners=["smtps"])], {"mx": REQUIRED, "smtps": STRONG})
    assert book.levels("mx") == (OFFERED, STRONG, REQUIRED)
    assert book.levels("smtps") == (STRONG, WITH_CLIENT, STRONG)


def test_certificates_are_asked_for_only_where_some_level_looks_at_them() -> None:
    """
    8314-06.
    """
    requesting = Level("asking", Tls.OFFERED, client_certificate=ClientCertificate.REQUESTED)
    book = Rulebook(
        [Rule(WITH_CLIENT, listeners=["mx"], recipients=["clinic.example"])],
        {"mx": OFFERED, "smtps": STRONG, "inside": requesting},
    )
    assert [book.requests_certificate(name) for name in ("mx", "smtps", "inside")] == [True, False, True]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("enforcement", "outcome"),
    [
        (True, Outcome.REFUSE),
        (False, Outcome.WOULD_REFUSE),
        (Ramp(NOW + timedelta(days=1)), Outcome.WOULD_REFUSE),
        (Ramp(NOW, share=0), Outcome.WOULD_REFUSE),
        (Ramp(NOW), Outcome.DEFER),
        (Ramp(NOW, reject_from=NOW + timedelta(days=1)), Outcome.DEFER),
        (Ramp(NOW, reject_from=NOW), Outcome.REFUSE),
    ],
)
def test_the_ramp_changes_the_outcome_and_nothing_else(
    stage: Callable[[Rulebook, Circumstances, TlsFacts | None], Decision],
    enforcement: Ramp | bool,  # noqa: FBT001
    outcome: Outcome,
) -> None:
    level = evolve(STRONG, enforcement=enforcement)
    book = Rulebook.single(level)
    for tls in (None, samples.TLS10):
        assert stage(book, circumstances(), tls) == Decision(level, STRONG.judge(tls), outcome)
    assert stage(book, circumstances(), samples.TLS13).outcome is Outcome.PASS


# A host that demands TLS of everybody, yet must be reachable by those who are told that TLS is broken.
STRICT = Rulebook(
    [PARTNERS, BANK, CLINIC],
    {"mx": STRONG, "inside": STRONG},
    {"mx": ["postmaster", "tlsrpt@example.org", "info@clinic.example"]},
)


@pytest.mark.parametrize("tls", [None, samples.TLS10], ids=["plaintext", "TLS 1.0"])
def test_exempt_recipients_are_reachable_over_anything_and_nobody_else_is(tls: TlsFacts | None) -> None:
    """
    3207-03, 5321-18, 8460-01: MAIL is let through, and the demand is put to each recipient.
    """
    session = STRICT.session(circumstances(), tls)
    assert (session.level, session.outcome) == (STRONG, Outcome.PASS)
    assert STRICT.sender(circumstances(sender="joe@a.example"), tls).outcome is Outcome.PASS
    outcomes = {
        recipient: STRICT.recipient(circumstances(sender="joe@a.example", recipient=recipient), tls)
        for recipient in ("PostMaster", "postmaster@example.org", "tlsrpt@EXAMPLE.org", "joe@example.org", "tlsrpt")
    }
    assert [decision.outcome for decision in outcomes.values()] == [Outcome.PASS] * 3 + [Outcome.REFUSE] * 2
    assert {decision.verdict for decision in outcomes.values()} == {STRONG.judge(tls)}


def test_an_exempt_recipient_is_exempt_from_recipient_rules_too() -> None:
    assert STRICT.recipient(circumstances(recipient="info@clinic.example"), None).outcome is Outcome.PASS
    assert STRICT.recipient(circumstances(recipient="jane@clinic.example"), None).outcome is Outcome.REFUSE


def test_what_a_rule_demands_of_the_session_is_left_to_the_recipients_too() -> None:
    partner = circumstances(client=IPv4Address("198.51.100.9"), recipient="jane@a.example")
    assert STRICT.session(partner, None).outcome is Outcome.PASS
    assert STRICT.sender(partner, None).outcome is Outcome.PASS
    assert STRICT.recipient(partner, None) == Decision(WITH_CLIENT, WITH_CLIENT.judge(None), Outcome.REFUSE)


@pytest.mark.parametrize("conditions", [{"senders": ["*"]}, {"recipients": ["*"]}], ids=str)
@pytest.mark.parametrize(
    ("session", "of_rule", "outcome"),
    [
        (True, True, Outcome.REFUSE),
        (True, False, Outcome.REFUSE),
        (Ramp(NOW), False, Outcome.DEFER),
        (False, True, Outcome.REFUSE),
        (False, False, Outcome.WOULD_REFUSE),
    ],
    ids=str,
)
@pytest.mark.parametrize("rule_tls", [Tls.OFFERED, Tls.REQUIRED])
def test_exemptions_do_not_let_a_rule_forgive_what_the_session_lacks(
    conditions: dict[str, Any],
    session: Ramp | bool,  # noqa: FBT001
    of_rule: bool,  # noqa: FBT001
    outcome: Outcome,
    rule_tls: Tls,
) -> None:
    """
    Else anybody could come in under a sender's name that little is asked of.
    """
    rule = Rule(Level("rule", rule_tls, enforcement=of_rule), **conditions)
    level = evolve(STRONG, enforcement=session)
    book = Rulebook([rule], {"mx": level}, {"mx": ["postmaster"]})
    decision = book.recipient(circumstances(sender="joe@a.example", recipient="jane@a.example"), None)
    if rule_tls is Tls.OFFERED:
        assert decision == Rulebook.single(level).session(circumstances(), None)
    else:
        assert decision.outcome is outcome


def test_what_is_demanded_of_a_sender_is_not_left_to_the_recipients() -> None:
    bank = circumstances(sender="joe@bank.example")
    assert STRICT.session(bank, None).outcome is Outcome.PASS
    assert STRICT.sender(bank, None) == Decision(STRONG, STRONG.judge(None), Outcome.REFUSE)


def test_a_listener_without_exemptions_demands_at_once() -> None:
    inside = circumstances("inside", sender="joe@a.example", recipient="postmaster")
    assert [stage(STRICT, inside, None).outcome for stage in STAGES] == [Outcome.REFUSE] * 3


def test_an_unknown_recipient_is_not_exempt() -> None:
    assert STRICT.recipient(circumstances(), None).outcome is Outcome.REFUSE


def test_an_audited_level_counts_each_recipient_that_is_not_exempt_as_an_enforced_one_refuses_it() -> None:
    audited = Rulebook.single(evolve(STRONG, enforcement=False))
    book = Rulebook([], {"mx": evolve(STRONG, enforcement=False)}, {"mx": ["postmaster"]})
    assert audited.session(circumstances(), None).outcome is Outcome.WOULD_REFUSE
    assert book.session(circumstances(), None).outcome is Outcome.PASS
    assert book.recipient(circumstances(recipient="joe@a.example"), None).outcome is Outcome.WOULD_REFUSE
    assert book.recipient(circumstances(recipient="postmaster"), None).outcome is Outcome.PASS


def test_a_listener_with_exemptions_asks_about_every_recipient() -> None:
    assert STRICT.uses_recipient("mx")
    assert not Rulebook([], {"mx": STRONG}, {"mx": []}).uses_recipient("mx")


def test_every_fault_of_a_book_is_reported_with_its_key() -> None:
    with pytest.raises(PolicyError) as caught:
        Rulebook(
            [CLINIC, Rule(STRONG, listeners=["mx", "submissions", "mxx"])],
            {"mx": OFFERED},
            {"mx": ["joe", "postmaster"], "imap": ["postmaster"]},
        )
    assert caught.value.problems == {
        "rule 2: listeners": "there is no mxx, submissions",
        "listener mx: exempt_recipients": "'joe': neither local-part@domain nor postmaster",
        "listener imap: exempt_recipients": "there is no such listener",
    }


# Conditions that overlap, so that several rules match the same session.
SOME_NAMES = ["a.example", "x.a.example", "b.example"]
SOME_PATTERNS = st.lists(st.sampled_from(["a.example", "*.a.example", "b.example", "*", "<>"]), max_size=2)
RULES = st.lists(
    st.builds(
        Rule,
        level=st.sampled_from([Level(f"level-{n}", Tls.REQUIRED) for n in range(8)]),
        listeners=st.sampled_from([(), ("mx",), ("submission",), ("mx", "submission")]),
        clients=st.sampled_from([(), (ip_network("192.0.2.0/25"),), (ip_network("192.0.2.0/24"),)]),
        helos=SOME_PATTERNS,
        snis=SOME_PATTERNS,
        senders=SOME_PATTERNS,
        recipients=SOME_PATTERNS,
    ),
    max_size=6,
)
SESSIONS = st.builds(
    circumstances,
    st.sampled_from(["mx", "submission"]),
    client=st.sampled_from([None, IPv4Address("192.0.2.7"), IPv4Address("192.0.2.200"), IPv6Address("2001:db8::1")]),
    helo=st.sampled_from([None, *SOME_NAMES]),
    sni=st.sampled_from([None, "", *SOME_NAMES]),
    sender=st.sampled_from([None, "", *(f"joe@{name}" for name in SOME_NAMES)]),
    recipient=st.sampled_from([None, "postmaster", *(f"jane@{name}" for name in SOME_NAMES)]),
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(RULES, SESSIONS)
def test_the_first_rule_that_matches_names_the_level(rules: list[Rule], session: Circumstances) -> None:
    book = Rulebook(rules, {"mx": OFFERED, "submission": STRONG})
    fallback = {"mx": OFFERED, "submission": STRONG}[session.listener]
    matching = [rule.level for rule in rules if rule.matches(session)]
    assert book.recipient(session, None).level == [*matching, fallback][0]
    early = evolve(session, recipient=None)
    assert book.sender(session, None).level == book.recipient(early, None).level
    earlier = evolve(early, sender=None)
    assert book.session(session, None).level == book.recipient(earlier, None).level


@settings(derandomize=True, deadline=None, max_examples=200)
@given(RULES, SESSIONS, st.data())
def test_what_a_book_says_it_does_not_use_changes_nothing(
    rules: list[Rule], session: Circumstances, data: st.DataObject
) -> None:
    book = Rulebook(rules, {"mx": OFFERED, "submission": STRONG})
    other = data.draw(SESSIONS)
    at = session.listener
    if not book.uses_helo(at):
        assert book.session(evolve(session, helo=other.helo), None) == book.session(session, None)
    if not book.uses_sni(at):
        assert book.session(evolve(session, sni=other.sni), None) == book.session(session, None)
    if not book.uses_sender(at):
        assert book.sender(session, None) == book.session(session, None)
    if not book.uses_recipient(at):
        assert book.recipient(session, None) == book.sender(session, None)


@settings(derandomize=True, deadline=None)
@given(RULES, st.text(), st.text(), st.text(), st.text())
def test_nothing_a_client_says_breaks_a_decision(rules: list[Rule], helo: str, sni: str, one: str, two: str) -> None:
    book = Rulebook(rules, {"mx": STRONG, "submission": STRONG}, {"mx": ["postmaster"]})
    said = circumstances(helo=helo, sni=sni, sender=one, recipient=two)
    for stage in STAGES:
        assert stage(book, said, samples.TLS13).outcome in Outcome
