"""
What each level says of each session, and in which words.
"""

import itertools
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policy import samples
from tests.policy.samples import CERTIFICATE_SHA256, SELF_SIGNED, VERIFIED, with_certificate
from tlsgate.policy.errors import PolicyError
from tlsgate.policy.facts import CertificateFacts, TlsFacts
from tlsgate.policy.level import (
    BUILT_IN,
    HELP_OCTETS_MAX,
    NAME_OCTETS_MAX,
    REASON_OCTETS_MAX,
    SUFFICIENT,
    VERSIONS,
    ClientCertificate,
    Level,
    Tls,
)

HANDSHAKES: dict[str, TlsFacts | None] = {
    "plaintext": None,
    "SSL 3": samples.SSL3,
    "TLS 1.0": samples.TLS10,
    "TLS 1.1": samples.TLS11,
    "TLS 1.2": samples.TLS12,
    "TLS 1.2 ChaCha20": samples.TLS12_CHACHA,
    "TLS 1.2 CCM": samples.TLS12_CCM,
    "TLS 1.2 CCM8": samples.TLS12_CCM8,
    "TLS 1.2 CBC": samples.TLS12_CBC,
    "TLS 1.2 static RSA": samples.TLS12_STATIC_RSA,
    "TLS 1.2 anonymous": samples.TLS12_ANONYMOUS,
    "TLS 1.2 anonymous EC": samples.TLS12_ANONYMOUS_EC,
    "TLS 1.3": samples.TLS13,
    "TLS 1.3 hybrid": samples.TLS13_HYBRID,
    "TLS 1.3 without encryption": samples.TLS13_INTEGRITY_ONLY,
    "TLS 1.3, verified client": with_certificate(VERIFIED),
    "TLS 1.3, self-signed client": with_certificate(SELF_SIGNED),
    "TLS 1.3, other client": with_certificate(VERIFIED, dns_names=("other.example",), ip_addresses=()),
    "TLS of the future": samples.UNHEARD_OF,
}
GOOD = {"TLS 1.2", "TLS 1.2 ChaCha20", "TLS 1.2 CCM", "TLS 1.3", "TLS 1.3 hybrid"}
WITH_CERTIFICATE = {"TLS 1.3, verified client", "TLS 1.3, self-signed client", "TLS 1.3, other client"}
ALL = set(HANDSHAKES)
TLS = ALL - {"plaintext"}


def level(tls: Tls = Tls.REQUIRED, **demands: Any) -> Level:
    return Level("partner", tls, **demands)


def verified(**demands: Any) -> Level:
    return level(client_certificate=ClientCertificate.VERIFIED, **demands)


DECISIONS: list[tuple[Level, set[str]]] = [
    (BUILT_IN["offered"], ALL),
    (BUILT_IN["required"], TLS),
    (BUILT_IN["strong"], GOOD | WITH_CERTIFICATE),
    (BUILT_IN["verified"], {"TLS 1.3, verified client", "TLS 1.3, other client"}),
    (Level("none", Tls.NONE), ALL),
    (level(min_version="TLSv1"), TLS - {"SSL 3", "TLS of the future"}),
    (level(min_version="TLSv1.1"), TLS - {"SSL 3", "TLS of the future", "TLS 1.0"}),
    (level(min_version="TLSv1.3"), {name for name in TLS if name.startswith("TLS 1.3")}),
    (level(min_bits=1), TLS - {"TLS 1.3 without encryption"}),
    (level(min_bits=128), TLS - {"TLS 1.3 without encryption", "TLS 1.2 CCM8"}),
    (level(authenticated=True), TLS - {"TLS 1.2 anonymous", "TLS 1.2 anonymous EC"}),
    (level(forward_secrecy=True), TLS - {"TLS 1.2 static RSA", "TLS of the future"}),
    (level(groups=("X25519MLKEM768",)), {"TLS 1.3 hybrid"}),
    (level(groups=["x25519mlkem768", "FFDHE2048"]), {"TLS 1.3 hybrid", "TLS 1.2 CCM"}),
    (level(client_certificate=ClientCertificate.REQUESTED), TLS),
    (verified(client_names=["mail.partner.example"]), {"TLS 1.3, verified client"}),
    (verified(client_names=["other.example"]), {"TLS 1.3, other client"}),
    (verified(client_fingerprints=[CERTIFICATE_SHA256]), WITH_CERTIFICATE),
    (verified(client_fingerprints=["00" * 32]), set()),
    (
        level(Tls.OFFERED, min_version="TLSv1.2", aead=True),
        {"plaintext", *GOOD, *WITH_CERTIFICATE}
        | {
            "TLS 1.2 CCM8",
            "TLS 1.2 static RSA",
            "TLS 1.2 anonymous",
        },
    ),
]


@pytest.mark.parametrize(("judging", "sufficient"), DECISIONS, ids=lambda value: getattr(value, "demands", ""))
def test_a_level_lets_in_what_meets_its_demands(judging: Level, sufficient: set[str]) -> None:
    """
    3207-22, 9325-01 to 9325-04: every handshake meets every level once.
    """
    assert {name for name, facts in HANDSHAKES.items() if judging.judge(facts).sufficient} == sufficient


@pytest.mark.parametrize(("judging", "sufficient"), DECISIONS, ids=lambda value: getattr(value, "demands", ""))
def test_only_a_session_without_tls_is_told_to_start_it(judging: Level, sufficient: set[str]) -> None:
    """
    3207-05 is for plaintext alone, 3207-12 for TLS alone; a refusal always has a reason, a pass never has one.
    """
    for name, facts in HANDSHAKES.items():
        verdict = judging.judge(facts)
        assert verdict.must_start_tls == (facts is None and not verdict.sufficient), name
        assert bool(verdict.reason) != verdict.sufficient, name
        assert verdict.enhanced == "5.7.0", name


STRONG_DEMANDS = "level strong demands TLSv1.2 or later with 128 bits, server authentication, forward secrecy and AEAD"


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        (None, "this session has no TLS"),
        (samples.TLS12_CBC, "TLSv1.2 ECDHE-RSA-AES128-SHA256 has no AEAD"),
        (TlsFacts("TLSv1.2", "AES128-SHA", 128), "TLSv1.2 AES128-SHA has no forward secrecy and no AEAD"),
        (samples.TLS10, "TLSv1 ECDHE-RSA-AES256-SHA is too old and has no AEAD"),
        (samples.TLS12_ANONYMOUS, "TLSv1.2 ADH-AES256-GCM-SHA384 is anonymous"),
        (
            TlsFacts("TLSv1", "ADH-DES-CBC3-SHA", 112),
            "TLSv1 ADH-DES-CBC3-SHA is anonymous and too old and has only 112 bits and no AEAD",
        ),
        (samples.TLS13_INTEGRITY_ONLY, "TLSv1.3 TLS_SHA256_SHA256 has only 0 bits and no AEAD"),
        (
            TlsFacts("TLSv1.1", "DES-CBC3-SHA", 112),
            "TLSv1.1 DES-CBC3-SHA is too old and has only 112 bits, no forward secrecy and no AEAD",
        ),
    ],
)
def test_strong_names_all_that_is_missing_gravest_first(facts: TlsFacts | None, found: str) -> None:
    assert BUILT_IN["strong"].judge(facts).reason == f"{found}; {STRONG_DEMANDS}"


@pytest.mark.parametrize(
    ("judging", "facts", "reason"),
    [
        (BUILT_IN["required"], None, "this session has no TLS; level required demands TLS"),
        (
            level(min_version="TLSv1.3"),
            samples.TLS12,
            "TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256 is too old; level partner demands TLSv1.3 or later",
        ),
        (
            level(groups=("X25519MLKEM768", "SecP256r1MLKEM768")),
            samples.TLS13,
            (
                "TLSv1.3 TLS_AES_256_GCM_SHA384 has key exchange by X25519; "
                "level partner demands TLS with key exchange by X25519MLKEM768 or SecP256r1MLKEM768"
            ),
        ),
        (
            level(groups=("X25519MLKEM768",)),
            samples.TLS12_STATIC_RSA,
            (
                "TLSv1.2 AES128-GCM-SHA256 has key exchange by no group; "
                "level partner demands TLS with key exchange by X25519MLKEM768"
            ),
        ),
        (
            verified(),
            samples.TLS13,
            (
                "TLSv1.3 TLS_AES_256_GCM_SHA384 has no client certificate; "
                "level partner demands TLS with a verified client certificate"
            ),
        ),
        (
            verified(help="https://example.org/tls"),
            with_certificate(SELF_SIGNED),
            (
                "TLSv1.3 TLS_AES_256_GCM_SHA384 has a client certificate that does not verify (self-signed certificate); "
                "level partner demands TLS with a verified client certificate; see https://example.org/tls"
            ),
        ),
    ],
)
def test_a_refusal_says_what_was_negotiated_what_was_demanded_and_where_help_is(
    judging: Level, facts: TlsFacts | None, reason: str
) -> None:
    assert judging.judge(facts).reason == reason


def test_a_refusal_tells_the_client_its_own_names_and_nobody_elses() -> None:
    """
    Who the known clients are is not for strangers to read.
    """
    reason = verified(client_names=["mail.secret-partner.example"]).judge(with_certificate(VERIFIED)).reason
    assert "a client certificate for mail.partner.example, 192.0.2.7" in reason
    assert "a known client certificate" in reason
    assert "secret" not in reason


@pytest.mark.parametrize("name", ["secp256r1", "prime256v1", "P-256", "SECP256R1"])
def test_a_group_has_the_names_of_openssl_nist_and_iana(name: str) -> None:
    assert level(groups=(name,)).judge(evolve(samples.TLS13, group="prime256v1")).sufficient
    assert level(groups=("prime256v1",)).judge(evolve(samples.TLS13, group=name)).sufficient
    assert not level(groups=(name,)).judge(evolve(samples.TLS13, group="secp384r1")).sufficient


def test_the_built_in_levels_are_those_of_the_documentation_and_cannot_be_changed() -> None:
    assert list(BUILT_IN) == ["offered", "required", "strong", "verified"]
    assert all(built_in.name == name for name, built_in in BUILT_IN.items())
    assert all(built_in.enforcement is True and not built_in.plaintext_auth for built_in in BUILT_IN.values())
    with pytest.raises(TypeError):
        BUILT_IN["offered"] = BUILT_IN["strong"]  # type: ignore[index]


def test_a_level_is_a_value() -> None:
    assert level(groups=["X25519"]) == level(groups=("X25519",))
    assert len({verified(client_fingerprints=["AB" * 32]), verified(client_fingerprints=[":".join(["ab"] * 32)])}) == 1
    changed = evolve(BUILT_IN["strong"], min_version="TLSv1.3")
    assert changed.demands.startswith("TLSv1.3 or later")
    assert not changed.judge(samples.TLS12).sufficient


@pytest.mark.parametrize(
    ("demands", "problems"),
    [
        ({"name": ""}, {"name": f"must be 1 to {NAME_OCTETS_MAX} printable ASCII characters without spaces"}),
        ({"name": "a b"}, {"name": f"must be 1 to {NAME_OCTETS_MAX} printable ASCII characters without spaces"}),
        ({"name": "x" * 41}, {"name": f"must be 1 to {NAME_OCTETS_MAX} printable ASCII characters without spaces"}),
        ({"help": "a\r\nb"}, {"help": f"must be at most {HELP_OCTETS_MAX} printable ASCII characters without spaces"}),
        ({"help": "ü"}, {"help": f"must be at most {HELP_OCTETS_MAX} printable ASCII characters without spaces"}),
        ({"help": "x" * 101}, {"help": f"must be at most {HELP_OCTETS_MAX} printable ASCII characters without spaces"}),
        ({"min_version": "1.2"}, {"min_version": "'1.2' is not one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3"}),
        ({"min_bits": -1}, {"min_bits": "-1 is less than 0"}),
        ({"groups": ["a b"]}, {"groups": "must be names of key exchange groups, such as X25519MLKEM768"}),
        ({"groups": [""]}, {"groups": "must be names of key exchange groups, such as X25519MLKEM768"}),
        (
            {"client_names": ["a.example"]},
            {"client_names": 'has no effect unless client_certificate is "verified"'},
        ),
        (
            {"client_fingerprints": ["00" * 32], "client_certificate": ClientCertificate.REQUESTED},
            {"client_fingerprints": 'has no effect unless client_certificate is "verified"'},
        ),
        (
            {"client_certificate": ClientCertificate.VERIFIED, "client_names": ["*"], "client_fingerprints": ["ü"]},
            {
                "client_names": "'*' is neither the DNS name nor the IP address of one host",
                "client_fingerprints": ("'\\xfc' is not a SHA-256 fingerprint: 64 hexadecimal digits, colons allowed"),
            },
        ),
        ({"tls": Tls.NONE, "aead": True}, {"tls": '"none" cannot demand TLS with AEAD'}),
        (
            {"tls": Tls.NONE, "min_bits": -1, "min_version": "é"},
            {
                "min_version": "'\\xe9' is not one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3",
                "min_bits": "-1 is less than 0",
                "tls": '"none" cannot demand \\xe9 or later with -1 bits',
            },
        ),
    ],
)
def test_every_fault_of_a_level_is_reported_with_its_key(demands: dict[str, Any], problems: dict[str, str]) -> None:
    with pytest.raises(PolicyError) as caught:
        Level(**{"name": "partner", "tls": Tls.REQUIRED, **demands})
    assert caught.value.problems == problems


CERTIFICATES = [None] + [
    CertificateFacts("CN=x", dns_names, ip_addresses, certificate_sha256, public_key_sha256, fault)
    for dns_names, ip_addresses, certificate_sha256, public_key_sha256, fault in itertools.product(
        [(), ("a.example",), ("b.example",), ("*.example.org", "a.example")],
        [(), ("192.0.2.7",)],
        ["aa" * 32, "bb" * 32],
        ["cc" * 32, "dd" * 32, "ee" * 32],
        ["", "certificate has expired"],
    )
]
FACTS = st.builds(
    TlsFacts,
    version=st.sampled_from(["SSLv3", *VERSIONS]),
    cipher=st.sampled_from([facts.cipher for facts in HANDSHAKES.values() if facts]),
    bits=st.sampled_from([0, 64, 112, 128, 256]),
    group=st.sampled_from(["", "X25519", "secp256r1", "X25519MLKEM768"]),
    certificate=st.sampled_from(CERTIFICATES),
)
# What each key may be, from demanding nothing to demanding most. Names and fingerprints are alternatives to each other:
# the fewer, the stricter, and none at all is strictest only while the other kind is demanded.
SCALES: dict[str, list[Any]] = {
    "tls": [Tls.OFFERED, Tls.REQUIRED],
    "min_version": [None, *VERSIONS],
    "min_bits": [0, 112, 128, 256],
    "aead": [False, True],
    "forward_secrecy": [False, True],
    "authenticated": [False, True],
    "groups": [(), ("X25519", "secp256r1", "X25519MLKEM768"), ("X25519MLKEM768", "X25519"), ("X25519MLKEM768",)],
}
NAMES = [("a.example", "x.example.org", "192.0.2.7"), ("a.example", "192.0.2.7"), ("a.example",)]
PINS = [("aa" * 32, "cc" * 32, "dd" * 32), ("aa" * 32, "cc" * 32), ("aa" * 32,)]
CLIENT_SCALES: list[dict[str, list[Any]]] = [
    {"client_certificate": list(ClientCertificate)},
    {"client_certificate": [ClientCertificate.VERIFIED], "client_names": [(), *NAMES]},
    {"client_certificate": [ClientCertificate.VERIFIED], "client_fingerprints": PINS},
    {
        "client_certificate": [ClientCertificate.VERIFIED],
        "client_names": [*NAMES, ()],
        "client_fingerprints": PINS,
    },
    {
        "client_certificate": [ClientCertificate.VERIFIED],
        "client_names": NAMES,
        "client_fingerprints": [*PINS, ()],
    },
]


@pytest.mark.parametrize("scales", CLIENT_SCALES, ids=" and ".join)
def test_a_demand_on_the_client_added_never_turns_a_refusal_into_a_pass(scales: dict[str, list[Any]]) -> None:
    """
    Every pair of neighbours on every scale, for every certificate.
    """
    for steps in itertools.product(*(range(len(scale)) for scale in scales.values())):
        looser = level(**{key: scale[step] for (key, scale), step in zip(scales.items(), steps, strict=True)})
        for (key, scale), step in zip(scales.items(), steps, strict=True):
            stricter = evolve(looser, **{key: scale[min(step + 1, len(scale) - 1)]})
            for certificate in CERTIFICATES:
                facts = evolve(samples.TLS13, certificate=certificate)
                assert looser.judge(facts).sufficient or not stricter.judge(facts).sufficient, (looser, stricter, facts)


def test_a_demand_added_to_any_other_never_turns_a_refusal_into_a_pass() -> None:
    """
    Every two demands, for every handshake: drawn at random, a level mostly has other reasons to refuse as well.
    """
    single = [(key, value) for key, scale in SCALES.items() for value in scale[1:]]
    single.append(("client_certificate", ClientCertificate.VERIFIED))
    levels = {demand: Level("looser", **{"tls": Tls.OFFERED, demand[0]: demand[1]}) for demand in single}
    handshakes = [*HANDSHAKES.values(), *(evolve(samples.TLS13, version=version) for version in VERSIONS)]
    handshakes += [evolve(facts, certificate=VERIFIED) for facts in handshakes if facts is not None]
    for demand, looser in levels.items():
        refused = [facts for facts in handshakes if not looser.judge(facts).sufficient]
        for key, value in single:
            if key != demand[0]:
                stricter = evolve(looser, **{key: value})
                assert [facts for facts in refused if stricter.judge(facts).sufficient] == [], (demand, key, value)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data(), FACTS | st.none())
def test_a_demand_added_never_turns_a_refusal_into_a_pass(data: st.DataObject, facts: TlsFacts | None) -> None:
    scales = SCALES | data.draw(st.sampled_from(CLIENT_SCALES))
    steps = {key: data.draw(st.integers(0, len(scale) - 1), label=key) for key, scale in scales.items()}
    key = data.draw(st.sampled_from(list(scales)))
    looser = Level("looser", **{key: scale[steps[key]] for key, scale in scales.items()})
    stricter = evolve(looser, name="stricter", **{key: scales[key][-1]})
    assert looser.judge(facts).sufficient or not stricter.judge(facts).sufficient


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.data())
def test_whatever_a_client_shows_a_reason_is_printable_ascii_within_its_bound(data: st.DataObject) -> None:
    """
    3207-12 answers with one reply line: nothing a client or its certificate says may break or overflow it.
    """
    words = st.text(max_size=400)
    certificate = CertificateFacts(
        subject=data.draw(words),
        dns_names=tuple(data.draw(st.lists(words, max_size=4))),
        ip_addresses=tuple(data.draw(st.lists(words, max_size=4))),
        certificate_sha256=data.draw(words),
        public_key_sha256=data.draw(words),
        fault=data.draw(st.just("") | words),
    )
    facts = TlsFacts(
        data.draw(words),
        data.draw(words),
        data.draw(st.integers(-(10**30), 10**30)),
        group=data.draw(words),
        sni=data.draw(words),
        certificate=data.draw(st.sampled_from([None, certificate])),
    )
    helping = "https://example.org/" + "h" * (HELP_OCTETS_MAX - 20)
    judging = evolve(
        BUILT_IN["verified"],
        name="n" * NAME_OCTETS_MAX,
        groups=("X25519MLKEM768",),
        client_names=("mail.partner.example",),
        help=data.draw(st.sampled_from(["", helping])),
    )
    verdict = judging.judge(facts)
    assert not verdict.sufficient
    assert verdict.reason.isascii()
    assert verdict.reason.isprintable()
    assert len(verdict.reason) <= REASON_OCTETS_MAX
    assert verdict.reason.endswith(judging.help and f"; see {judging.help}")


def test_a_pass_costs_no_new_value() -> None:
    """
    Every session of a public host gets this answer.
    """
    assert BUILT_IN["offered"].judge(None) is SUFFICIENT
    assert BUILT_IN["strong"].judge(samples.TLS13) is SUFFICIENT
