/*
 * A load of SMTP sessions for one gate: many at once, or at a fixed rate, or opened and held idle.
 *
 * One thread, epoll, OpenSSL. Every reply is compared with the one expected, and a session that gets another, or none in
 * time, counts as a failure. The program says "ready" when its warm-up is over and starts on the next line of standard
 * input, so whoever measures can read clocks in between. At the end it prints one line of JSON.
 */
#define _GNU_SOURCE
#include "dialogue.h"
#include "tally.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, LINE_OCTETS = 80 };

static const double POLL_SECONDS_MAX = 0.1;

struct load {
    struct settings settings;
    int connections;    /* at once; when sessions are held: being opened at once */
    int warm_up;        /* sessions before the measured ones; when sessions are held: held before */
    int sessions;       /* measured ones; 0: as many as start within the given time */
    double seconds;
    bool resume;
    double rate;        /* open loop: sessions started per second; 0: a new one when an old one ends */
};

static struct load load = {.connections = 1, .settings = {.messages = 1, .timeout_seconds = 20}};
static struct session *slots;
static int *idle_slots, idle_count, held_count, slot_count;
static long started;
static int poller;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void finish(struct session *session)
{
    tally_session(session, load.settings.messages - session->messages_left);
    session_close(session);
    idle_slots[idle_count++] = session->slot;
}

static void advance(struct session *session)
{
    enum stage before = session->stage;
    session_advance(session, &load.settings);
    if (session->stage == HELD && before != HELD)
        held_count++;
    if (before == HELD && session->stage == FAILED)
        held_count--;
    if (session->stage == DONE || session->stage == FAILED)
        finish(session);
}

static void start(double began)
{
    struct session *session = &slots[idle_slots[--idle_count]];
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = session};
    started++;
    session_open(session, &load.settings, began);
    if (session->stage == FAILED)
        finish(session);
    else if (epoll_ctl(poller, EPOLL_CTL_ADD, session->wire.fd, &event) < 0)
        die("epoll_ctl");
}

static void poll_sessions(double seconds)
{
    struct epoll_event events[EVENTS_MAX];
    struct timespec wait = {.tv_nsec = (long)(seconds * 1e9)};
    int ready = epoll_pwait2(poller, events, EVENTS_MAX, &wait, NULL);
    for (int i = 0; i < ready; i++)
        advance(events[i].data.ptr);
}

static void end_overdue_sessions(double now)
{
    static double looked;
    if (now < looked + 1)
        return;
    looked = now;
    for (int i = 0; i < slot_count; i++) {
        struct session *session = &slots[i];
        if (session->stage >= HELD || now - session->began < load.settings.timeout_seconds)
            continue;
        snprintf(failure_text, sizeof failure_text, "%s: no reply in time", stage_name(session->stage));
        session->stage = FAILED;
        finish(session);
    }
}

static int in_flight(void)
{
    return slot_count - idle_count - held_count;
}

/* As many sessions as there are slots for, or, at a fixed rate, as many as are due; a late one is timed from its due time. */
static void start_due_sessions(long sessions, double began, double until)
{
    double now = now_seconds();
    while (idle_count > 0 && in_flight() < load.connections && started < sessions) {
        double due = load.rate > 0 ? began + (double)started / load.rate : now;
        if (due > now || due >= until)
            return;
        start(due);
    }
}

static double seconds_to_next_start(long sessions, double began)
{
    if (load.rate <= 0 || idle_count == 0 || started >= sessions)
        return POLL_SECONDS_MAX;
    double wait = began + (double)started / load.rate - now_seconds();
    return wait < 0 ? 0 : wait > POLL_SECONDS_MAX ? POLL_SECONDS_MAX : wait;
}

/* Run sessions until so many were started, or the time is over, and all have ended or are held. */
static double run(long sessions, double seconds)
{
    double began = now_seconds();
    double until = began + seconds;
    started = 0;
    tally_reset();
    start_due_sessions(sessions, began, until);
    while (in_flight() > 0 || (started < sessions && now_seconds() < until)) {
        poll_sessions(seconds_to_next_start(sessions, began));
        double now = now_seconds();
        if (now < until)
            start_due_sessions(sessions, began, until);
        end_overdue_sessions(now);
    }
    return now_seconds() - began;
}

static void wait_for_line(void)
{
    char line[64];
    if (!fgets(line, sizeof line, stdin))
        exit(0);
}

static void say(const char *line)
{
    puts(line);
    fflush(stdout);
}

static void release_held_sessions(void)
{
    for (int i = 0; i < slot_count; i++) {
        struct session *session = &slots[i];
        if (session->stage != HELD)
            continue;
        held_count--;
        session->began = now_seconds();
        session_release(session, &load.settings);
        if (session->stage == DONE || session->stage == FAILED)
            finish(session);
    }
    while (in_flight() > 0) {
        poll_sessions(POLL_SECONDS_MAX);
        end_overdue_sessions(now_seconds());
    }
}

/* Lines of 80 octets without dots, whole ones only, then the end-of-data mark. */
static void compose_message(size_t size)
{
    static const char line[] = "the quick brown fox jumps over the lazy dog and the gate lets all of it through\r\n";
    size_t lines = (size + LINE_OCTETS - 1) / LINE_OCTETS;
    char *message = malloc(lines * LINE_OCTETS + 4);
    if (!message)
        die("malloc");
    for (size_t i = 0; i < lines; i++) {
        memcpy(message + i * LINE_OCTETS, line, LINE_OCTETS - 2);
        memcpy(message + (i + 1) * LINE_OCTETS - 2, "\r\n", 2);
    }
    memcpy(message + lines * LINE_OCTETS, ".\r\n", 3);
    load.settings.message = message;
    load.settings.message_octets = lines * LINE_OCTETS + 3;
}

static void make_context(const char *version)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    int number = strcmp(version, "1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;
    SSL_CTX_set_min_proto_version(context, number);
    SSL_CTX_set_max_proto_version(context, number);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (load.resume) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, wire_keep_ticket);
    }
    load.settings.context = context;
}

static enum security security_named(const char *name)
{
    if (strcmp(name, "starttls") == 0)
        return STARTTLS;
    return strcmp(name, "implicit") == 0 ? IMPLICIT_TLS : PLAINTEXT;
}

static void read_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", 1, 0, 'p'},     {"connections", 1, 0, 'c'}, {"warm-up", 1, 0, 'w'},    {"sessions", 1, 0, 'n'},
        {"seconds", 1, 0, 's'},  {"rate", 1, 0, 'r'},        {"security", 1, 0, 'S'},   {"tls", 1, 0, 'v'},
        {"messages", 1, 0, 'm'}, {"size", 1, 0, 'b'},        {"hold", 1, 0, 'h'},       {"timeout", 1, 0, 't'},
        {"resume", 0, 0, 'R'},   {"pipeline", 0, 0, 'P'},    {"one-source", 0, 0, 'o'}, {0},
    };
    const char *version = "1.3";
    size_t size = 4096;
    int option;
    load.settings.gate.sin_family = AF_INET;
    load.settings.gate.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'p': load.settings.gate.sin_port = htons((unsigned short)atoi(optarg)); break;
        case 'c': load.connections = atoi(optarg); break;
        case 'w': load.warm_up = atoi(optarg); break;
        case 'n': load.sessions = atoi(optarg); break;
        case 's': load.seconds = atof(optarg); break;
        case 'r': load.rate = atof(optarg); break;
        case 'S': load.settings.security = security_named(optarg); break;
        case 'v': version = optarg; break;
        case 'm': load.settings.messages = atoi(optarg); break;
        case 'b': size = strtoull(optarg, NULL, 10); break;
        case 'h': load.settings.hold = strcmp(optarg, "ehlo") == 0 ? HOLD_AFTER_EHLO : HOLD_AFTER_MESSAGE; break;
        case 't': load.settings.timeout_seconds = atof(optarg); break;
        case 'R': load.resume = true; break;
        case 'P': load.settings.pipeline = true; break;
        case 'o': load.settings.one_source = true; break;
        default: exit(2);
        }
    }
    compose_message(size);
    make_context(version);
}

static void make_slots(void)
{
    slot_count = load.connections + (load.settings.hold ? load.warm_up + load.sessions : 0);
    slots = calloc((size_t)slot_count, sizeof *slots);
    idle_slots = calloc((size_t)slot_count, sizeof *idle_slots);
    if (!slots || !idle_slots)
        die("calloc");
    for (int i = slot_count; i-- > 0;) {
        slots[i].slot = i;
        slots[i].stage = DONE;
        idle_slots[idle_count++] = i;
    }
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    read_options(argc, argv);
    make_slots();
    poller = epoll_create1(0);
    const double no_limit = 3600;
    double rate = load.rate;
    load.rate = 0;
    run(load.warm_up, no_limit);
    load.rate = rate;
    say("ready");
    wait_for_line();
    double cpu = cpu_seconds();
    double seconds = load.sessions > 0 ? run(load.sessions, no_limit) : run(1L << 40, load.seconds);
    cpu = cpu_seconds() - cpu;
    if (load.settings.hold) {
        printf("{\"held\": %d}\n", held_count);
        fflush(stdout);
        wait_for_line();
        release_held_sessions();
    }
    tally_report(seconds, cpu, load.settings.message_octets);
    return 0;
}
