"""
Exim, OpenSMTPD and Sendmail as mail servers behind the gate.
"""

import os
import pwd
import subprocess
from collections.abc import Mapping
from pathlib import Path

from attrs import define, field

from tests.integration.mailserver import DOMAIN, MESSAGE_OCTETS_MAX, MailServer, elsewhere
from tests.integration.postfix import Postfix
from tests.integration.processes import Daemon, need

EXIM = """
exim_path = {root}/usr/sbin/exim4
spool_directory = {folder}/spool
log_file_path = {folder}/%s.log
pid_file_path = {folder}/exim.pid
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
primary_hostname = exim.example
domainlist inbox = {domain}
keep_environment =
tls_advertise_hosts =
chunking_advertise_hosts = *
pipelining_connect_advertise_hosts =
smtputf8_advertise_hosts = *
accept_8bitmime = true
message_size_limit = {size}
host_lookup =
rfc1413_hosts =
# It is its own user from the start and cannot become another.
deliver_drop_privilege = true
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = recipient
acl_smtp_data = accept
{settings}

begin acl
recipient:
  deny message = relay not permitted
       domains = ! +inbox
  deny message = no such user
       local_parts = nobody
  accept

begin routers
capture:
  driver = accept
  domains = +inbox
  transport = capture

begin transports
capture:
  driver = appendfile
  directory = {folder}/mailbox
  maildir_format
  create_directory = false
  envelope_to_add = true
  return_path_add = true
  user = {owner}
  group = {owner}
"""


@define
class Exim(MailServer):
    """
    Exim, delivering with appendfile.

    It runs as its own user from the start: started by root with another configuration file, it gives up root anyway.
    *settings* stand among the main options.
    """

    name = "exim"
    keywords = frozenset({"8BITMIME", "CHUNKING", "HELP", "PIPELINING", "SIZE", "SMTPUTF8"})
    owner = "Debian-exim"

    settings: str = ""

    def configured(self) -> Daemon:
        exim = pwd.getpwnam(self.owner)
        os.chown(self.folder, exim.pw_uid, exim.pw_gid)
        config = self.folder / "exim.conf"
        config.write_text(
            EXIM.format(
                root=self.root,
                folder=self.folder,
                port=self.port,
                domain=DOMAIN,
                size=MESSAGE_OCTETS_MAX,
                owner=self.owner,
                settings=self.settings,
            )
        )
        as_exim = ["setpriv", f"--reuid={exim.pw_uid}", f"--regid={exim.pw_gid}", "--clear-groups"]
        return Daemon(
            [*as_exim, f"{self.root}/usr/sbin/exim4", "-C", str(config), "-bdf", "-q1h"], self.folder / "process.log"
        )


OPENSMTPD = """
smtp max-message-size {size}
queue ttl 1h
listen on 127.0.0.1 port {port} hostname opensmtpd.example
{rules}
table users {{ "@" = "{owner}" }}
action "capture" mda "{folder}/capture" virtual <users>
match from any for rcpt-to "nobody@{domain}" reject
match from any for domain "{domain}" action "capture"
"""


@define
class OpenSmtpd(MailServer):
    """
    OpenSMTPD, delivering through a command.

    Its spool, its socket and its empty folder stand in /var at compiled-in places, so it sees a /var of its own
    (a mount namespace), and what else *binds* says. *rules* stand before its own.
    """

    name = "opensmtpd"
    keywords = frozenset({"8BITMIME", "DSN", "ENHANCEDSTATUSCODES", "HELP", "SIZE"})

    rules: str = ""
    binds: Mapping[str, Path] = field(factory=dict)

    def configured(self) -> Daemon:
        var = self.folder / "var"
        for path in ("run", "spool/smtpd", "lib/opensmtpd/empty", "mail", "tmp"):
            (var / path).mkdir(parents=True)
        (var / "spool/smtpd").chmod(0o711)
        config = self.folder / "smtpd.conf"
        config.write_text(
            OPENSMTPD.format(
                size=MESSAGE_OCTETS_MAX,
                port=self.port,
                rules=self.rules,
                owner=self.owner,
                folder=self.folder,
                domain=DOMAIN,
            )
        )
        binds = {"/var": var, "/usr/libexec": self.root / "usr/libexec", **self.binds}
        return Daemon(
            elsewhere("opensmtpd.example", binds, [f"{self.root}/usr/sbin/smtpd", "-d", "-f", str(config)]),
            self.folder / "process.log",
        )


SENDMAIL = r"""
divert(-1)
define(`_CF_DIR_', `{cf}/')
include({cf}/m4/cf.m4)
OSTYPE(`linux')
define(`confDOMAIN_NAME', `sendmail.example')
define(`QUEUE_DIR', `{folder}/queue')
define(`confPID_FILE', `{folder}/sendmail.pid')
define(`STATUS_FILE', `{folder}/statistics')
define(`HELP_FILE', `')
undefine(`ALIAS_FILE')
define(`confMAX_MESSAGE_SIZE', `{size}')
define(`confDEF_USER_ID', `nobody:nogroup')
define(`confDONT_BLAME_SENDMAIL', `GroupWritableDirPathSafe')
define(`confLOCAL_MAILER', `capture')
define(`confEIGHT_BIT_HANDLING', `pass8')
define(`confBAD_RCPT_THROTTLE', `0')
define(`confTO_IDENT', `0')
define(`confSERVICE_SWITCH_FILE', `{folder}/service.switch')
FEATURE(`no_default_msa')
FEATURE(`nocanonify')
FEATURE(`accept_unresolvable_domains')
FEATURE(`accept_unqualified_senders')
DAEMON_OPTIONS(`Family=inet, Addr=127.0.0.1, Port={port}, Name=MTA')
LOCAL_DOMAIN(`{domain}')
MAILER(`local')
MAILER(`smtp')
MAILER_DEFINITIONS
Mcapture,	P={folder}/capture, F=lsnP, L=0, E=\n, T=DNS/RFC822/X-Unix, A=capture $u@{domain}
LOCAL_RULESETS
SLocal_check_rcpt
R$* nobody@{domain} $*	$#error $@ 5.1.1 $: "550 User unknown"
R$* @{domain} $*	$@ OK
R$*	$#error $@ 5.7.1 $: "550 Relaying denied"
divert(0)
"""


@define
class Sendmail(MailServer):
    """
    Sendmail, delivering through a program mailer.
    """

    name = "sendmail"
    keywords = frozenset(
        {
            "8BITMIME",
            "AUTH",
            "DELIVERBY",
            "DSN",
            "ENHANCEDSTATUSCODES",
            "ETRN",
            "EXPN",
            "HELP",
            "PIPELINING",
            "SIZE",
            "VERB",
        }
    )

    def configured(self) -> Daemon:
        (self.folder / "queue").mkdir(mode=0o700)
        (self.folder / "service.switch").write_text("hosts files\naliases files\n")
        source = SENDMAIL.format(
            cf=self.root / "usr/share/sendmail/cf",
            folder=self.folder,
            size=MESSAGE_OCTETS_MAX,
            port=self.port,
            domain=DOMAIN,
        )
        made = subprocess.run([need("m4"), "-"], input=source, capture_output=True, text=True, check=True)
        config = self.folder / "sendmail.cf"
        config.write_text(made.stdout)
        config.chmod(0o644)
        hosts = self.folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n127.0.0.1 sendmail.example\n")
        return Daemon(
            elsewhere(
                "sendmail.example",
                {"/etc/hosts": hosts},
                [f"{self.root}/usr/libexec/sendmail/sendmail", "-C", str(config), "-bD"],
            ),
            self.folder / "process.log",
        )


SERVERS: tuple[type[MailServer], ...] = (Postfix, Exim, OpenSmtpd, Sendmail)
