#include "tally.h"

#include <stdio.h>
#include <stdlib.h>

enum column { TOTAL, BANNER_WAIT, HANDSHAKE_TIME, ENVELOPE_TIME, MESSAGE_TIME, COLUMNS };

static double *columns[COLUMNS];
static size_t count, room;
static long failures, messages, resumed;
static char first_failure[sizeof failure_text], protocol[64], cipher[64];

void tally_reset(void)
{
    count = 0;
    messages = resumed = 0;
}

static void keep_timings(const struct session *session)
{
    const double values[COLUMNS] = {session->ended - session->began, session->banner_seconds,
                                    session->handshake_seconds, session->envelope_seconds, session->message_seconds};
    if (count == room)
        room = room ? room * 2 : 1024;
    for (int i = 0; i < COLUMNS; i++) {
        columns[i] = realloc(columns[i], room * sizeof(double));
        if (!columns[i])
            abort();
        columns[i][count] = values[i];
    }
    count++;
}

void tally_session(const struct session *session, int session_messages)
{
    messages += session_messages;
    if (session->stage == FAILED) {
        if (failures++ == 0)
            snprintf(first_failure, sizeof first_failure, "%s", failure_text);
        return;
    }
    resumed += session->resumed;
    keep_timings(session);
    if (session->wire.ssl) {
        snprintf(protocol, sizeof protocol, "%s", SSL_get_version(session->wire.ssl));
        snprintf(cipher, sizeof cipher, "%s", SSL_get_cipher_name(session->wire.ssl));
    }
}

static int compare_doubles(const void *left, const void *right)
{
    double difference = *(const double *)left - *(const double *)right;
    return (difference > 0) - (difference < 0);
}

static double percentile_ms(enum column column, double share)
{
    size_t rank = (size_t)(share * (double)count);
    if (count == 0)
        return 0;
    qsort(columns[column], count, sizeof(double), compare_doubles);
    return columns[column][rank < count ? rank : count - 1] * 1e3;
}

static double sum(enum column column)
{
    double total = 0;
    for (size_t i = 0; i < count; i++)
        total += columns[column][i];
    return total;
}

static void print_text(const char *name, const char *text)
{
    printf("\"%s\": \"", name);
    for (; *text; text++)
        putchar(*text == '"' || *text == '\\' || *text < ' ' ? '?' : *text);
    printf("\", ");
}

void tally_report(double seconds, double cpu_seconds, size_t message_octets)
{
    printf("{\"sessions\": %zu, \"failures\": %ld, \"messages\": %ld, \"octets\": %.0f, \"resumed\": %ld, ", count,
           failures, messages, (double)messages * (double)message_octets, resumed);
    printf("\"seconds\": %.6f, \"cpu_seconds\": %.6f, \"message_seconds\": %.6f, ", seconds, cpu_seconds,
           sum(MESSAGE_TIME));
    print_text("first_failure", first_failure);
    print_text("protocol", protocol);
    print_text("cipher", cipher);
    printf("\"p50_ms\": %.3f, \"p90_ms\": %.3f, \"p99_ms\": %.3f, ", percentile_ms(TOTAL, 0.5),
           percentile_ms(TOTAL, 0.9), percentile_ms(TOTAL, 0.99));
    printf("\"banner_ms\": %.3f, \"handshake_ms\": %.3f, \"envelope_ms\": %.3f, \"message_ms\": %.3f}\n",
           percentile_ms(BANNER_WAIT, 0.5), percentile_ms(HANDSHAKE_TIME, 0.5), percentile_ms(ENVELOPE_TIME, 0.5),
           percentile_ms(MESSAGE_TIME, 0.5));
    fflush(stdout);
}
