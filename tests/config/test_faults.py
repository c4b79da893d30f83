"""
Every fault of a configuration is told, once, with its key and what would be right.
"""

from pathlib import Path

import pytest

from tests.config.corpus import BACKEND, BASE, TLS, Case, cases
from tlsgate.config import ConfigError, parse
from tlsgate.config.faults import Findings


def problems_of(text: str, base: Path = BASE) -> tuple[str, ...]:
    """
    Return what is wrong with *text*, nothing if it can be used.
    """
    try:
        parse(text, base)
    except ConfigError as error:
        return error.problems
    return ()


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.id)
def test_each_fault_gets_one_message(case: Case) -> None:
    assert case.problems
    assert problems_of(case.text) == case.problems


def test_the_corpus_is_large() -> None:
    assert len(cases()) >= 70
    assert len({case.text for case in cases()}) == len(cases())


def test_all_faults_of_a_file_come_at_once() -> None:
    """
    Faults of single values, unknown keys, names nobody has, and contradictions do not hide each other.
    """
    text = """
        hostnam = "mx.example.org"
        [[listener]]
        endpoint = "25"
        level = "partner"
        [[level]]
        name = "partner"
        min_version = "TLSv2"
        [[rule]]
        clients = ["192.0.2.0/24"]
        level = "partnr"
        [limits]
        sessions = "many"
        [tls]
        certificates = [{ chain = "mx.pem", key = "mx.key" }]
        client_crls = ["partners.crl"]
    """
    assert problems_of(text) == (
        "hostnam: unknown key; did you mean hostname?",
        'listener[0].endpoint: "25" is not an endpoint; write "tcp:25"',
        'level[0].min_version: "TLSv2" is not one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3',
        'limits.sessions: "many" is not a whole number',
        'backend: is missing; write backend = { endpoints = ["tcp:127.0.0.1:2525"] }',
        'rule[0].level: "partnr" is not one of offered, required, strong, verified, partner',
        "tls.client_crls: need client_ca: they are lists of what that CA has revoked",
    )


def test_a_level_without_a_name_is_not_held_against_those_who_name_it() -> None:
    text = '[[listener]]\nlevel = "partner"\n[[level]]\nmin_bits = 128\n' + TLS + BACKEND
    assert problems_of(text) == ('level[0].name: is missing; write name = "partner"',)


def test_a_listener_without_a_usable_name_is_not_held_against_rules() -> None:
    text = '[[listener]]\nname = 5\n[[rule]]\nlisteners = ["mx"]\nlevel = "strong"\n' + TLS + BACKEND
    assert problems_of(text) == ("listener[0].name: 5 is not text; write it in quotes",)


def test_a_group_without_a_name_is_not_held_against_listeners() -> None:
    text = '[[listener]]\nbackend = "a"\n[[backend_group]]\nendpoints = ["tcp:127.0.0.1:2526"]\n' + TLS + BACKEND
    assert problems_of(text) == ('backend_group[0].name: is missing; write name = "tenant-a"',)


def test_no_value_of_any_type_in_any_place_gets_past_the_messages() -> None:
    """
    A wrong type anywhere is a message, never a traceback.
    """
    keys = """
        hostname listener listener[].endpoint listener[].name listener[].tls listener[].level listener[].backend
        listener[].plaintext_auth listener[].proxy_protocol_from listener[].acknowledge_rfc3207
        listener[].exempt_recipients tls tls.certificates tls.legacy tls.floor tls.client_ca tls.client_crls tls.alpn
        tls.unknown_sni tls.resumption tls.reload_seconds level level[].name level[].tls level[].min_version
        level[].min_bits level[].aead level[].forward_secrecy level[].authenticated level[].groups
        level[].client_certificate level[].client_names level[].client_fingerprints level[].enforce level[].help
        level[].plaintext_auth rule rule[].listeners rule[].clients rule[].helo rule[].sni rule[].senders
        rule[].recipients rule[].level rule[].backend backend backend.endpoints backend.client_address
        backend.accept_open_relay backend.tls backend.tls_ca backend.tls_name backend.tls_level backend.received_header
        backend.spread backend.probe_seconds backend.keywords backend_group message message.bare_newlines limits
        limits.sessions observe observe.journal observe.metrics observe.posture
    """
    wrong = [
        "-7",
        "1.5",
        "nan",
        "2027-01-01",
        "08:00:00",
        "{ x = { x = 1 } }",
        "[[[]]]",
        "[{ x = 1 }]",
        '"\\u0000\\u001b"',
        '""',
    ]
    for key in keys.split():
        for value in wrong:
            table, _, name = key.rpartition(".")
            text = f"{name} = {value}\n"
            if table:
                text = f"[[{table[:-2]}]]\n{text}" if table.endswith("[]") else f"[{table}]\n{text}"
            problems = problems_of(text)
            assert any(problem.startswith(key.replace("[]", "[0]")) for problem in problems), f"{key} = {value}"
            assert all(problem.isascii() and problem.isprintable() for problem in problems), f"{key} = {value}"


@pytest.mark.parametrize("value", ["1", "0"])
def test_a_number_is_not_a_truth(value: str) -> None:
    assert problems_of(f"[tls]\nlegacy = {value}\n{BACKEND}")[0] == f"tls.legacy: {value} is not true or false"


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_truth_is_not_a_number(value: str) -> None:
    text = f"[limits]\nsessions = {value}\n{TLS}{BACKEND}"
    assert problems_of(text) == (f"limits.sessions: {value} is not a whole number",)


def test_ten_thousand_faults_are_told_in_reasonable_time() -> None:
    rules = '[[rule]]\nclients = ["192.0.2.1/24"]\nlevel = "partnr"\n' * 5_000
    assert len(problems_of(rules + TLS + BACKEND)) == 10_000


def test_of_many_names_to_choose_from_some_are_shown() -> None:
    levels = "".join(f'[[level]]\nname = "level-{number}"\n' for number in range(100))
    (problem,) = problems_of('[[listener]]\nlevel = "partner"\n' + levels + TLS + BACKEND)
    assert problem.startswith(
        'listener[0].level: "partner" is not one of offered, required, strong, verified, level-0,'
    )
    assert problem.endswith("level-15 ... (104 in all)")


def test_a_fault_knows_the_tables_it_stands_in() -> None:
    findings = Findings()
    findings.note("level[1].enforce.from", "is missing")
    for path in ("level", "level[1]", "level[1].enforce", "level[1].enforce.from"):
        assert not findings.clean(path)
    for path in ("level[0]", "level[1].name", "lev", "level[10]"):
        assert findings.clean(path)
