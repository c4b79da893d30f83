"""
Postfix, as a mail server behind the gate, and (see `clients`) as a client before it.
"""

import os
import pwd
from collections.abc import Mapping

from attrs import define, field

from tests.integration.mailserver import DOMAIN, MESSAGE_OCTETS_MAX, MailServer
from tests.integration.processes import Daemon

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
daemon_directory = {libraries}/sbin
command_directory = {root}/usr/sbin
shlib_directory = {libraries}
meta_directory = {folder}/etc
# The libraries are found by this variable only, and master(8) passes on only what is named here.
import_environment = MAIL_CONFIG LD_LIBRARY_PATH={libraries}
export_environment = MAIL_CONFIG LD_LIBRARY_PATH={libraries}
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
myhostname = postfix.example
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_relay_restrictions = reject_unauth_destination
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
smtpd_tls_security_level = none
# Otherwise the header of a message from 127.0.0.1 is completed and rewritten.
local_header_rewrite_clients =
message_size_limit = {size}
virtual_mailbox_limit = 0
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {folder}
virtual_mailbox_maps = regexp:{folder}/etc/recipients
virtual_uid_maps = static:{owner.pw_uid}
virtual_gid_maps = static:{owner.pw_gid}
virtual_alias_maps =
alias_maps =
alias_database =
default_transport = error:no mail leaves this machine
"""

RECIPIENTS = """
if !/^nobody@/
/@{domain}$/ mailbox/
endif
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
QUEUE_FOLDERS = "active bounce corrupt defer deferred flush hold incoming maildrop private public saved trace"


@define
class Postfix(MailServer):
    """
    Postfix: the master process and its services, delivering with virtual(8).

    *settings* replace or add to lines of main.cf, *services* are added to master.cf.
    """

    name = "postfix"
    keywords = frozenset(
        {"8BITMIME", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES", "ETRN", "PIPELINING", "SIZE", "SMTPUTF8", "VRFY"}
    )

    settings: Mapping[str, str] = field(factory=dict)
    services: str = ""

    def configured(self) -> Daemon:
        libraries = self.root / "usr/lib/postfix"
        main = MAIN.format(
            root=self.root,
            libraries=libraries,
            folder=self.folder,
            domain=DOMAIN,
            size=MESSAGE_OCTETS_MAX,
            owner=pwd.getpwnam(self.owner),
        )
        etc = self.folder / "etc"
        etc.mkdir()
        kept = [line for line in main.splitlines() if line.split(" =")[0] not in self.settings]
        set_here = [f"{key} = {value}" for key, value in self.settings.items()]
        (etc / "main.cf").write_text("\n".join([*kept, *set_here, ""]))
        (etc / "master.cf").write_text(MASTER.format(port=self.port) + self.services)
        (etc / "recipients").write_text(RECIPIENTS.format(domain=DOMAIN))
        (etc / "dynamicmaps.cf").touch()
        self._make_queue()
        return Daemon(
            [f"{libraries}/sbin/master", "-d", "-c", str(etc)],
            self.folder / "process.log",
            {"LD_LIBRARY_PATH": str(libraries), "MAIL_CONFIG": str(etc)},
        )

    def _make_queue(self) -> None:
        postfix = pwd.getpwnam("postfix").pw_uid
        (self.folder / "queue/pid").mkdir(parents=True)
        for path in (self.folder / "data", *(self.folder / "queue" / name for name in QUEUE_FOLDERS.split())):
            path.mkdir()
            os.chown(path, postfix, -1)
