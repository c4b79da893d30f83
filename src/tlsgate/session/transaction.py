"""
The shadow of the backend's mail transaction (RFC 5321 section 3.3): what the journal tells of it, and whose it is.
"""

from collections.abc import Mapping

from attrs import define

from tlsgate.session.actions import Record
from tlsgate.smtp.reply import BackendReply


@define
class Transaction:
    """
    One mail transaction as the backend's replies describe it.

    *open* is false once its last chunk was refused: the journal has been told, but it may stand all the same (RFC 3030
    section 2: indeterminate until RSET), as it does in Exim if there was no recipient.
    """

    sender: str
    open: bool = True
    recipients: int = 0
    recipients_refused: int = 0
    octets: int = 0

    def record(self, outcome: str, answer: BackendReply | None, standing: Mapping[str, object]) -> Record:
        """
        Return what the journal says of it: *outcome* is "delivered" only if the backend said so, *standing* is that of
        the session.
        """
        return Record(
            "transaction",
            {
                "outcome": outcome,
                **standing,
                "sender": self.sender,
                "recipients": self.recipients,
                "recipients_refused": self.recipients_refused,
                "octets": self.octets,
                "reply": None if answer is None else answer.raw[:200].decode("utf-8", "backslashreplace").strip(),
            },
        )
