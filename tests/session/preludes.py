"""
How the dialogues of the session's tests begin, up to where they get interesting.
"""

GREETED = """
    client < 220 mx.example.org ESMTP
"""

STARTED = (
    GREETED
    + """
    client > EHLO client.example
    client < 250-mx.example.org
    client < 250-ENHANCEDSTATUSCODES
    client < 250-8BITMIME
    client < 250-SMTPUTF8
    client < 250 STARTTLS
    client > STARTTLS
    client < 220 2.0.0 Ready to start TLS
    starttls
    dial
"""
)

TLS = "tls TLSv1.3 TLS_AES_256_GCM_SHA384 256"
WEAK_TLS = "tls TLSv1.2 ECDHE-RSA-AES128-SHA256 128"

INSIDE = (
    STARTED
    + TLS
    + """
    backend > 220 backend.example.org ESMTP
"""
)

# A backend that offers much.
MODERN = (
    INSIDE
    + """
    client  > EHLO client.example
    backend < EHLO client.example
    backend > 250-backend.example.org
    backend > 250-PIPELINING
    backend > 250-CHUNKING
    backend > 250-STARTTLS
    backend > 250-XCLIENT ADDR
    backend > 250 AUTH PLAIN EXTERNAL
    client  < 250-backend.example.org
    client  < 250-PIPELINING
    client  < 250-CHUNKING
    client  < 250 AUTH PLAIN
"""
)

# A backend of the nineties: one command at a time, and no extension but SIZE.
OLD = (
    INSIDE
    + """
    client  > EHLO client.example
    backend < EHLO client.example
    backend > 250-backend.example.org
    backend > 250 SIZE
    client  < 250-backend.example.org
    client  < 250 SIZE
"""
)

# Level "offered": plaintext, the backend greets the client.
OFFERED = """
    dial
    backend > 220 backend.example.org ESMTP
    client  < 220 backend.example.org ESMTP
"""

OFFERED_EHLO = (
    OFFERED
    + """
    client  > EHLO client.example
    backend < EHLO client.example
    backend > 250-backend.example.org
    backend > 250-PIPELINING
    backend > 250-CHUNKING
    backend > 250 AUTH PLAIN
    client  < 250-backend.example.org
    client  < 250-PIPELINING
    client  < 250-CHUNKING
    client  < 250 STARTTLS
"""
)

TRANSACTION = """
    client  > MAIL FROM:<a@example.org>
    backend < MAIL FROM:<a@example.org>
    backend > 250 sender ok
    client  < 250 sender ok
    client  > RCPT TO:<b@example.org>
    backend < RCPT TO:<b@example.org>
    backend > 250 recipient ok
    client  < 250 recipient ok
"""

DATA = (
    TRANSACTION
    + """
    client  > DATA
    backend < DATA
    backend > 354 go ahead
    client  < 354 go ahead
"""
)
