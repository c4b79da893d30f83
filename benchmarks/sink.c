/*
 * The mail server behind every gate that is measured: it accepts mail for one domain and throws it away.
 *
 * Plaintext SMTP on one loopback port, one thread, epoll. On a second port it answers the HTTP question that nginx's
 * mail module asks before each delivery, so that nginx can be measured at all.
 *
 * Prints its ports as one line of JSON when it listens. Each line on standard input is answered with the counts since
 * the start as one line of JSON; the end of standard input ends the program, so it cannot outlive the benchmark.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_OCTETS = 256 * 1024, KEPT_OCTETS_MAX = 2048, REPLIES_OCTETS_MAX = 8192, EVENTS_MAX = 256 };

enum kind { SMTP_LISTENER, AUTH_LISTENER, CONTROL, SMTP, AUTH };
enum phase { COMMANDS, MESSAGE, CHUNK };

struct connection {
    int fd;
    enum kind kind;
    enum phase phase;
    bool closing;
    bool last_chunk;
    size_t chunk_left;
    size_t kept_length;
    char kept[KEPT_OCTETS_MAX];
};

static const char *const DOMAIN = "@sink.example>";

static int poller;
static int smtp_port;
static bool chunking;
static unsigned long long messages, octets, connections, refused;
static char arena[KEPT_OCTETS_MAX + READ_OCTETS];
static char replies[REPLIES_OCTETS_MAX];
static size_t replies_length;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void reply(const char *text)
{
    size_t length = strlen(text);
    if (replies_length + length <= sizeof replies) {
        memcpy(replies + replies_length, text, length);
        replies_length += length;
    }
}

static bool verb_is(const char *line, const char *verb)
{
    return strncasecmp(line, verb, strlen(verb)) == 0;
}

/* A stranger's domain is refused: to a guard that looks for open relays the sink must look like a server in order. */
static void answer_recipient(const char *line)
{
    if (strcasestr(line, DOMAIN)) {
        reply("250 2.1.5 recipient ok\r\n");
        return;
    }
    refused++;
    reply("550 5.7.1 relaying denied\r\n");
}

static void end_chunk(struct connection *connection)
{
    messages += connection->last_chunk;
    connection->phase = COMMANDS;
    reply("250 2.0.0 chunk ok\r\n");
}

static void answer_chunk(struct connection *connection, const char *line)
{
    char *rest;
    connection->chunk_left = strtoull(line + strlen("BDAT "), &rest, 10);
    connection->last_chunk = strcasestr(rest, "LAST") != NULL;
    connection->phase = CHUNK;
    if (connection->chunk_left == 0)
        end_chunk(connection);
}

static void answer(struct connection *connection, const char *line)
{
    if (verb_is(line, "EHLO")) {
        reply("250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n");
        reply(chunking ? "250-CHUNKING\r\n250 SIZE 1073741824\r\n" : "250 SIZE 1073741824\r\n");
    } else if (verb_is(line, "RCPT TO:")) {
        answer_recipient(line);
    } else if (verb_is(line, "DATA")) {
        reply("354 go ahead\r\n");
        connection->phase = MESSAGE;
    } else if (verb_is(line, "BDAT ")) {
        answer_chunk(connection, line);
    } else if (verb_is(line, "QUIT")) {
        reply("221 2.0.0 bye\r\n");
        connection->closing = true;
    } else if (verb_is(line, "HELO") || verb_is(line, "MAIL FROM:") || verb_is(line, "RSET") || verb_is(line, "NOOP")) {
        reply("250 2.0.0 ok\r\n");
    } else {
        refused++;
        reply("502 5.5.1 command not implemented\r\n");
    }
}

/* Each of these takes what it can use of the text and returns how many octets that was. */

static size_t take_command(struct connection *connection, char *text, size_t length)
{
    char *end = memmem(text, length, "\r\n", 2);
    if (!end)
        return 0;
    *end = '\0';
    answer(connection, text);
    *end = '\r';
    /* The CRLF behind DATA is left where it is: it is the one an empty message ends with. */
    return (size_t)(end - text) + (connection->phase == MESSAGE ? 0 : 2);
}

/*
 * The text begins with the CRLF before it. A message ends at CRLF . CRLF only; looking for the rare dot instead of the
 * frequent CR keeps the sink several times faster than what stands in front of it.
 */
static size_t take_message(struct connection *connection, char *text, size_t length)
{
    char *from = text + 2;
    char *end = text + length;
    for (char *dot; from < end && (dot = memchr(from, '.', (size_t)(end - from))); from = dot + 1) {
        if (dot[-2] != '\r' || dot[-1] != '\n')
            continue;
        if (end - dot < 3)
            break;
        if (dot[1] == '\r' && dot[2] == '\n') {
            messages++;
            octets += (size_t)(dot + 3 - text) - 2;
            connection->phase = COMMANDS;
            reply("250 2.0.0 queued\r\n");
            return (size_t)(dot + 3 - text);
        }
    }
    size_t kept = length < 4 ? length : 4;
    octets += length - kept;
    return length - kept;
}

static size_t take_chunk(struct connection *connection, size_t length)
{
    size_t taken = length < connection->chunk_left ? length : connection->chunk_left;
    connection->chunk_left -= taken;
    octets += taken;
    if (connection->chunk_left == 0)
        end_chunk(connection);
    return taken;
}

static size_t take_smtp(struct connection *connection, char *text, size_t length)
{
    size_t done = 0, taken = 1;
    while (!connection->closing && taken > 0) {
        if (connection->phase == MESSAGE)
            taken = take_message(connection, text + done, length - done);
        else if (connection->phase == CHUNK)
            taken = take_chunk(connection, length - done);
        else
            taken = take_command(connection, text + done, length - done);
        done += taken;
    }
    return done;
}

static size_t take_auth(struct connection *connection, const char *text, size_t length)
{
    char answer_text[256];
    if (!memmem(text, length, "\r\n\r\n", 4))
        return 0;
    snprintf(answer_text, sizeof answer_text,
             "HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: %d\r\nConnection: close\r\n\r\n",
             smtp_port);
    reply(answer_text);
    connection->closing = true;
    return length;
}

static void hang_up(struct connection *connection)
{
    close(connection->fd);
    free(connection);
}

static void read_connection(struct connection *connection)
{
    memcpy(arena, connection->kept, connection->kept_length);
    ssize_t got = read(connection->fd, arena + connection->kept_length, READ_OCTETS);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        hang_up(connection);
        return;
    }
    size_t length = connection->kept_length + (size_t)got;
    replies_length = 0;
    size_t done = connection->kind == AUTH ? take_auth(connection, arena, length) : take_smtp(connection, arena, length);
    if (replies_length > 0 && write(connection->fd, replies, replies_length) != (ssize_t)replies_length)
        connection->closing = true;
    if (connection->closing || length - done > sizeof connection->kept) {
        hang_up(connection);
        return;
    }
    connection->kept_length = length - done;
    memcpy(connection->kept, arena + done, connection->kept_length);
}

static struct connection *watch(int fd, enum kind kind)
{
    struct connection *connection = calloc(1, sizeof *connection);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (!connection)
        die("calloc");
    connection->fd = fd;
    connection->kind = kind;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
    return connection;
}

static void accept_all(const struct connection *listener)
{
    static const char greeting[] = "220 sink.example ESMTP\r\n";
    static const int on = 1;
    int fd;
    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (listener->kind == AUTH_LISTENER) {
            watch(fd, AUTH);
            continue;
        }
        connections++;
        watch(fd, SMTP);
        if (write(fd, greeting, sizeof greeting - 1) < 0)
            continue; /* The next read finds the connection lost and frees it. */
    }
}

static int listen_on_loopback(enum kind kind)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 4096) < 0)
        die("listen");
    getsockname(fd, (struct sockaddr *)&address, &length);
    watch(fd, kind);
    return ntohs(address.sin_port);
}

static void tell_counts(void)
{
    char line[256];
    struct rusage usage;
    ssize_t got = read(STDIN_FILENO, line, sizeof line);
    if (got <= 0)
        exit(0);
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"connections\": %llu, \"messages\": %llu, \"octets\": %llu, \"refused\": %llu, \"cpu_seconds\": %.6f}\n",
           connections, messages, octets, refused, cpu);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_MAX];
    chunking = argc > 1 && strcmp(argv[1], "--chunking") == 0;
    poller = epoll_create1(0);
    smtp_port = listen_on_loopback(SMTP_LISTENER);
    int auth_port = listen_on_loopback(AUTH_LISTENER);
    watch(STDIN_FILENO, CONTROL);
    printf("{\"smtp\": %d, \"auth\": %d}\n", smtp_port, auth_port);
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection->kind == SMTP_LISTENER || connection->kind == AUTH_LISTENER)
                accept_all(connection);
            else if (connection->kind == CONTROL)
                tell_counts();
            else
                read_connection(connection);
        }
    }
}
