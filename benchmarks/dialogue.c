#define _GNU_SOURCE
#include "dialogue.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

char failure_text[512];

static const char *const STAGE_NAMES[] = {"banner", "EHLO", "STARTTLS", "handshake", "EHLO in TLS", "MAIL", "RCPT",
                                          "DATA",   "message", "QUIT",  "held",      "done",        "failed"};
static const int EXPECTED[] = {220, 250, 220, 0, 250, 250, 250, 354, 250, 221, 0, 0, 0};

double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

const char *stage_name(enum stage stage)
{
    return STAGE_NAMES[stage];
}

static void fail(struct session *session, const char *format, ...)
{
    va_list arguments;
    int prefix = snprintf(failure_text, sizeof failure_text, "%s: ", STAGE_NAMES[session->stage]);
    va_start(arguments, format);
    vsnprintf(failure_text + prefix, sizeof failure_text - (size_t)prefix, format, arguments);
    va_end(arguments);
    session->stage = FAILED;
}

static void flush(struct session *session, const struct settings *settings)
{
    enum outcome outcome = GOT_SOME;
    while (outcome == GOT_SOME && session->out_sent < session->out_length)
        outcome = wire_write(&session->wire, session->out + session->out_sent, session->out_length - session->out_sent,
                             &session->out_sent);
    while (outcome == GOT_SOME && session->stage == MESSAGE && session->message_sent < settings->message_octets)
        outcome = wire_write(&session->wire, settings->message + session->message_sent,
                             settings->message_octets - session->message_sent, &session->message_sent);
    if (outcome == CLOSED)
        fail(session, "connection lost while writing");
}

static void say(struct session *session, const struct settings *settings, const char *text)
{
    session->out_sent = 0;
    session->out_length = strlen(text);
    memcpy(session->out, text, session->out_length);
    flush(session, settings);
}

static void start_tls(struct session *session, const struct settings *settings)
{
    session->stage = HANDSHAKE;
    session->stage_began = now_seconds();
    wire_start_tls(&session->wire, settings->context);
}

static void start_message(struct session *session, const struct settings *settings)
{
    static const char mail[] = "MAIL FROM:<client@load.example>\r\n";
    static const char group[] = "MAIL FROM:<client@load.example>\r\nRCPT TO:<user@sink.example>\r\nDATA\r\n";
    session->stage = MAIL;
    session->message_sent = 0;
    say(session, settings, settings->pipeline ? group : mail);
}

static void start_quit(struct session *session, const struct settings *settings)
{
    session->stage = QUIT;
    say(session, settings, "QUIT\r\n");
}

static void after_ehlo(struct session *session, const struct settings *settings)
{
    if (settings->hold == HOLD_AFTER_EHLO)
        session->stage = HELD;
    else
        start_message(session, settings);
}

static void after_message(struct session *session, const struct settings *settings)
{
    session->message_seconds += now_seconds() - session->stage_began;
    session->stage_began = now_seconds();
    if (--session->messages_left > 0)
        start_message(session, settings);
    else if (settings->hold == HOLD_AFTER_MESSAGE)
        session->stage = HELD;
    else
        start_quit(session, settings);
}

/* The reply that was expected has arrived: the next thing a client says. */
static void next(struct session *session, const struct settings *settings)
{
    double now = now_seconds();
    switch (session->stage) {
    case BANNER:
        session->banner_seconds = now - session->began;
        session->stage = settings->security == STARTTLS ? EHLO : EHLO_IN_TLS;
        say(session, settings, "EHLO load.example\r\n");
        break;
    case EHLO:
        session->stage = STARTTLS_REPLY;
        say(session, settings, "STARTTLS\r\n");
        break;
    case STARTTLS_REPLY:
        start_tls(session, settings);
        break;
    case EHLO_IN_TLS:
        after_ehlo(session, settings);
        break;
    case MAIL:
        session->stage = RCPT;
        if (!settings->pipeline)
            say(session, settings, "RCPT TO:<user@sink.example>\r\n");
        break;
    case RCPT:
        session->stage = DATA;
        if (!settings->pipeline)
            say(session, settings, "DATA\r\n");
        break;
    case DATA:
        session->envelope_seconds = now - session->stage_began;
        session->stage_began = now;
        session->stage = MESSAGE;
        flush(session, settings);
        break;
    case MESSAGE:
        after_message(session, settings);
        break;
    case QUIT:
        session->ended = now;
        session->stage = DONE;
        break;
    default:
        fail(session, "a reply nobody asked for");
    }
}

/* Use up one reply line. Returns false when there is none yet. */
static bool take_line(struct session *session, const struct settings *settings)
{
    session->in[session->in_length] = '\0';
    char *end = strstr(session->in, "\r\n");
    if (!end)
        return false;
    char line[sizeof session->in];
    size_t length = (size_t)(end - session->in);
    memcpy(line, session->in, length);
    line[length] = '\0';
    session->in_length -= length + 2;
    memmove(session->in, end + 2, session->in_length);
    if (EXPECTED[session->stage] == 0 || atoi(line) != EXPECTED[session->stage])
        fail(session, "%.200s", line);
    else if (line[3] != '-')
        next(session, settings);
    return true;
}

static void shake_hands(struct session *session, const struct settings *settings)
{
    enum outcome outcome = wire_shake_hands(&session->wire);
    if (outcome == AGAIN)
        return;
    if (outcome == CLOSED) {
        const char *reason = ERR_reason_error_string(ERR_peek_error());
        fail(session, "%s", reason ? reason : "connection lost");
        return;
    }
    double now = now_seconds();
    session->handshake_seconds = now - session->stage_began;
    session->stage_began = now;
    session->resumed = SSL_session_reused(session->wire.ssl);
    if (settings->security == IMPLICIT_TLS) {
        session->stage = BANNER;
        return;
    }
    session->stage = EHLO_IN_TLS;
    say(session, settings, "EHLO load.example\r\n");
}

static bool over(const struct session *session)
{
    return session->stage == DONE || session->stage == FAILED;
}

void session_advance(struct session *session, const struct settings *settings)
{
    if (session->stage == HANDSHAKE)
        shake_hands(session, settings);
    if (session->stage != HANDSHAKE && !over(session))
        flush(session, settings);
    while (session->stage != HANDSHAKE && !over(session)) {
        size_t room = sizeof session->in - 1 - session->in_length;
        enum outcome outcome = wire_read(&session->wire, session->in + session->in_length, room, &session->in_length);
        if (outcome == AGAIN)
            return;
        if (outcome == CLOSED) {
            fail(session, "connection lost while waiting for a reply");
            return;
        }
        while (!over(session) && take_line(session, settings))
            ;
        if (session->stage == HANDSHAKE)
            shake_hands(session, settings);
    }
}

void session_release(struct session *session, const struct settings *settings)
{
    start_quit(session, settings);
    session_advance(session, settings);
}

static struct sockaddr_in source_of(const struct session *session, const struct settings *settings)
{
    struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    /* A limit per client address must not be what is measured. */
    if (!settings->one_source)
        source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 0x10000 + (unsigned)session->slot);
    return source;
}

void session_open(struct session *session, const struct settings *settings, double began)
{
    struct sockaddr_in source = source_of(session, settings);
    int slot = session->slot;
    struct wire wire = session->wire;
    memset(session, 0, offsetof(struct session, in));
    session->slot = slot;
    session->wire = wire;
    session->messages_left = settings->messages;
    session->began = session->stage_began = began;
    if (!wire_open(&session->wire, &settings->gate, &source))
        fail(session, "connect: %s", strerror(errno));
    else if (settings->security == IMPLICIT_TLS)
        start_tls(session, settings);
}

void session_close(struct session *session)
{
    wire_close(&session->wire, session->stage == DONE);
}
