"""
The checks of what is demanded of a TLS: levels, the floor below them, certificates, and what a public server may ask.
"""

from collections.abc import Iterator
from typing import get_args

from tlsgate.config.checked import Checked
from tlsgate.config.endpoints import listening_port
from tlsgate.config.faults import shown
from tlsgate.config.tree import Config, Level, Listener, Ramp, Rule, TlsVersion

SMTP_PORT = 25
_VERSIONS: tuple[str, ...] = get_args(TlsVersion)
_DEMANDS = ("min_version", "min_bits", "aead", "forward_secrecy", "authenticated", "groups")


def check_level(checked: Checked, level: Level) -> None:
    """
    The demands of a level go together, and what they need is there.
    """
    config, findings = checked.config, checked.findings
    if not findings.clean(level.at):
        return
    verifies = level.client_certificate == "verified"
    demands = [key for key in _DEMANDS if getattr(level, key)] + (["client_certificate"] if verifies else [])
    if level.tls == "none" and demands:
        findings.note(f"{level.at}.{demands[0]}", 'demands something of a TLS that tls = "none" never offers')
    for key in ("client_names", "client_fingerprints"):
        if getattr(level, key) and not verifies:
            findings.note(f"{level.at}.{key}", 'are only looked at with client_certificate = "verified"')
    if verifies and config.tls.client_ca is None and findings.clean("tls.client_ca"):
        if level.client_names:
            findings.note(f"{level.at}.client_names", "need tls.client_ca: a name nobody vouches for proves nothing")
        elif not level.client_fingerprints:
            text = '"verified" needs tls.client_ca, or client_fingerprints'
            findings.note(f"{level.at}.client_certificate", text)
    floor = config.tls.floor
    if level.min_version is not None and findings.clean("tls") and _below(level.min_version, min("TLSv1.2", floor)):
        text = f"{shown(level.min_version)} is below the floor, {floor}: no such handshake gets as far as a level"
        findings.note(f"{level.at}.min_version", f"{text}; raise it, or lower the floor (tls.legacy = true)")
    ramp = level.enforce
    if isinstance(ramp, Ramp) and ramp.reject_from is not None and ramp.reject_from <= ramp.start:
        text = f"{ramp.reject_from:%Y-%m-%d %H:%M} UTC is not after from, {ramp.start:%Y-%m-%d %H:%M} UTC"
        findings.note(f"{ramp.at}.reject_from", text)


def check_public(checked: Checked, listener: Listener) -> None:
    """
    A publicly referenced server must not demand TLS of everybody (RFC 3207 section 4).
    """
    if listening_port(listener.endpoint) != SMTP_PORT or not checked.findings.clean(listener.at):
        return
    if listener.acknowledge_rfc3207:
        return
    if listener.tls == "implicit":
        path, what, remedy = f"{listener.at}.tls", "implicit", 'take "starttls" with level = "offered"'
    else:
        demanding = [
            (path, name)
            for path, name in _levels_of_everybody(checked.config, listener)
            if name in checked.levels and _demands_tls(checked.levels[name])
        ]
        if not demanding:
            return
        (path, what), remedy = demanding[0], 'take "offered"'
    checked.findings.note(
        path,
        f"{shown(what)} demands TLS of everybody on port 25, and a server that MX records name must not do that (RFC "
        f"3207 section 4): senders without TLS could not reach it; {remedy}, or, if no MX record leads here, set "
        "acknowledge_rfc3207 = true on the listener",
    )


def _demands_tls(level: Level) -> bool:
    return level.tls == "required" and level.enforce is not False


def _levels_of_everybody(config: Config, listener: Listener) -> Iterator[tuple[str, str]]:
    """
    Yield key and name of the levels a client meets about whom nothing is known: one for the session, one for its mail.
    """
    rules = [rule for rule in config.rules if rule.level is not None and _matches_everybody(rule, listener)]
    for stage in ([rule for rule in rules if not (rule.senders or rule.recipients)], rules):
        if stage:
            yield f"{stage[0].at}.level", stage[0].level or ""
        else:
            yield f"{listener.at}.level", listener.level


def _matches_everybody(rule: Rule, listener: Listener) -> bool:
    """
    Whether *rule* keeps nobody out who comes to *listener*.
    """
    names = [patterns for patterns in (rule.helo, rule.senders, rule.recipients) if patterns]
    here = not rule.listeners or listener.name in rule.listeners
    any_client = not rule.clients or any(network.prefixlen == 0 for network in rule.clients)
    return here and any_client and not rule.sni and all("*" in patterns for patterns in names)


def check_floor(checked: Checked) -> None:
    """
    The floor is lowered only on purpose, and only where a level refuses what it lets in.
    """
    tls, findings = checked.config.tls, checked.findings
    if not (findings.clean("tls.floor") and findings.clean("tls.legacy")):
        return
    if not tls.legacy:
        if _below(tls.floor, "TLSv1.2"):
            text = f"{shown(tls.floor)} must not be negotiated (RFC 9325 section 3.1.1)"
            findings.note("tls.floor", f"{text}; to do so, and refuse in words, set legacy = true")
        return
    if not _below(tls.floor, "TLSv1.2"):
        text = f"{shown(tls.floor)} shuts out what legacy = true is to let in; leave floor out"
        findings.note("tls.floor", f'{text}, or take "TLSv1" or "TLSv1.1"')
    sound = all(findings.clean(path) for path, _ in checked.uses()) and findings.clean("level")
    if sound and not any(_refuses_old(level) for level in checked.used()):
        findings.note(
            "tls.legacy",
            "lets in TLS that is no protection, and no level in use refuses it; name a level with "
            'min_version = "TLSv1.2" or later ("strong", for one) in a listener or a rule, and enforce it, now or from '
            "a date on",
        )


def _refuses_old(level: Level) -> bool:
    """
    Whether *level* refuses what only a lowered floor lets in. AEAD came with TLS 1.2.
    """
    modern = level.aead or (level.min_version is not None and not _below(level.min_version, "TLSv1.2"))
    return level.enforce is not False and level.tls != "none" and modern


def check_certificates(checked: Checked) -> None:
    """
    There is a certificate where TLS is offered, and a CA where client certificates are verified.
    """
    config, findings = checked.config, checked.findings
    tls = config.tls
    offering = [level.name for level in checked.used() if level.tls != "none"]
    implicit = [listener.name for listener in config.listeners if listener.tls == "implicit"]
    if not tls.certificates and findings.clean("tls") and findings.clean("level") and (offering or implicit):
        why = f"level {shown(offering[0])} offers TLS" if offering else f"listener {shown(implicit[0])} is implicit TLS"
        findings.note("tls.certificates", f'{why}; write certificates = [{{ chain = "mx.pem", key = "mx.key" }}]')
    if tls.client_ca is None and findings.clean("tls.client_ca"):
        if any(name == "verified" for _, name in checked.uses()):
            text = 'level "verified" needs the CA that client certificates come from'
            findings.note("tls.client_ca", f'{text}; write client_ca = "partners-ca.pem"')
        if tls.client_crls:
            findings.note("tls.client_crls", "need client_ca: they are lists of what that CA has revoked")


def _below(version: str, other: str) -> bool:
    return _VERSIONS.index(version) < _VERSIONS.index(other)
