/*
 * What became of the sessions: counts, timings, and the line of JSON that tells them.
 */
#ifndef TALLY_H
#define TALLY_H

#include "dialogue.h"

/* Forget the sessions counted so far, but not the failures: one in the warm-up is one too many as well. */
void tally_reset(void);

void tally_session(const struct session *session, int messages);

void tally_report(double seconds, double cpu_seconds, size_t message_octets);

#endif
