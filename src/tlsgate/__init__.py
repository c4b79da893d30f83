"""
tlsgate: TLS for mail servers that have none.

A gate in front of an SMTP server: it terminates STARTTLS (RFC 3207) or implicit TLS (RFC 8314), demands a level of
security, refuses in SMTP's own words whoever does not reach it, and relays everything else unchanged.
"""

__version__ = "0.1.0"
