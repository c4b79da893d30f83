"""
A gate made of aiosmtpd's own parts: its SMTP server, STARTTLS required, and its Proxy handler.

Runs in whatever interpreter has aiosmtpd, which need not be the one that has tlsgate; it imports nothing of ours.
"""

import asyncio
import ssl
import sys

from aiosmtpd.handlers import Proxy
from aiosmtpd.smtp import SMTP


async def serve(port: int, backend_port: int, chain: str, key: str) -> None:
    """
    Relay what arrives on *port* of the loopback address to *backend_port*, until the process is ended.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)

    def gate() -> SMTP:
        handler = Proxy("127.0.0.1", backend_port)
        # No limit on the message: the largest one measured is larger than aiosmtpd's default of 32 MiB.
        return SMTP(
            handler, data_size_limit=None, tls_context=context, require_starttls=True, hostname="mx.example.org"
        )

    server = await asyncio.get_running_loop().create_server(gate, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]))
