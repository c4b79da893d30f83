"""Tell twistd of the `tlsgate` service; nothing of it is imported before it is asked for."""

from twisted.application.service import ServiceMaker

tlsgate = ServiceMaker("tlsgate", "tlsgate.service", "STARTTLS gate in front of an SMTP server", "tlsgate")
