/*
 * One client session, from connect to the reply to QUIT: what is sent, what is expected, what took how long.
 */
#ifndef DIALOGUE_H
#define DIALOGUE_H

#include "wire.h"

enum security { STARTTLS, IMPLICIT_TLS, PLAINTEXT };

/* Where a session that is only opened is left idle. */
enum hold { HOLD_NOWHERE, HOLD_AFTER_EHLO, HOLD_AFTER_MESSAGE };

struct settings {
    struct sockaddr_in gate;
    enum security security;
    enum hold hold;
    bool pipeline;
    bool one_source; /* every client from 127.0.0.1, instead of an address of its own each */
    int messages;
    size_t message_octets; /* end-of-data mark included */
    const char *message;
    double timeout_seconds;
    SSL_CTX *context;
};

/* What the next octets from the gate are; the order of a session. */
enum stage { BANNER, EHLO, STARTTLS_REPLY, HANDSHAKE, EHLO_IN_TLS, MAIL, RCPT, DATA, MESSAGE, QUIT, HELD, DONE, FAILED };

struct session {
    struct wire wire;
    int slot;
    enum stage stage;
    int messages_left;
    size_t in_length;
    size_t out_length, out_sent;
    size_t message_sent;
    bool resumed;
    double began, stage_began;
    double ended, banner_seconds, handshake_seconds, envelope_seconds, message_seconds;
    char in[4096];
    char out[512];
};

double now_seconds(void);
const char *stage_name(enum stage stage);

/*
 * Open a connection for the slot. Its stage is FAILED when that fails at once.
 */
void session_open(struct session *session, const struct settings *settings, double began);

/*
 * Do all that can be done now. The session is over when its stage is DONE or FAILED, idle when it is HELD.
 */
void session_advance(struct session *session, const struct settings *settings);

/* Let a held session go on, to its QUIT. */
void session_release(struct session *session, const struct settings *settings);

void session_close(struct session *session);

/* Why the last session failed, in words. */
extern char failure_text[512];

#endif
