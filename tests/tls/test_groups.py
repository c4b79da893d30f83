"""
Key exchange groups: a level whose groups nobody knows refuses everybody, and that must be told before it does.
"""

import pytest
from OpenSSL import SSL

from tests.support.handshake import client_connection, client_context
from tlsgate.tls.groups import library, unknown_groups
from tlsgate.tls.native import knows_group


@pytest.mark.parametrize(
    "group", ["X25519", "x25519", "P-256", "prime256v1", "secp256r1", "secp384r1", "X448", "ffdhe2048"]
)
def test_known(group: str) -> None:
    assert knows_group(group)


@pytest.mark.parametrize("group", ["X25519MLKEM786", "P-257", "default", "DEFAULT", "mlkem\xfc"])
def test_unknown(group: str) -> None:
    assert not knows_group(group)


def test_asking_leaves_no_error_behind_for_the_next_handshake() -> None:
    assert not knows_group("P-257")
    client = client_connection(context=client_context())
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()


def test_one_that_can_be_used_is_enough() -> None:
    faults, doubts = unknown_groups("level[0].groups", ["P-257", "X25519"])
    assert faults == []
    assert doubts == [f"level[0].groups[0]: {library()} knows no key exchange group 'P-257'"]


def test_without_any_nobody_could_come() -> None:
    faults, doubts = unknown_groups("level[0].groups", ["P-257", "P-258"])
    assert doubts == []
    assert [fault.split(": ")[0] for fault in faults] == ["level[0].groups[0]", "level[0].groups[1]"]
    assert faults[0].endswith("knows no key exchange group 'P-257'; the level would refuse everybody")


def test_a_level_that_demands_none_has_no_faults() -> None:
    assert unknown_groups("level[0].groups", []) == ([], [])


def test_the_library_has_name_and_version() -> None:
    name, version = library().split()
    assert name
    assert version[0].isdigit()
