/*
 * One connection of a client: TCP from an address of its own, in plaintext or TLS, never blocking.
 */
#ifndef WIRE_H
#define WIRE_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

struct wire {
    int fd;
    SSL *ssl;            /* NULL: plaintext */
    SSL_SESSION *ticket; /* outlives the connection: the next one from the same place resumes it */
};

enum outcome { GOT_SOME, AGAIN, CLOSED };

/*
 * Open a connection. Returns false, with errno set, when it fails at once; the descriptor is to be closed even then.
 */
bool wire_open(struct wire *wire, const struct sockaddr_in *gate, const struct sockaddr_in *source);

/* Start TLS; the context keeps tickets for `wire_keep_ticket` if sessions are to be resumed. */
void wire_start_tls(struct wire *wire, SSL_CTX *context);
enum outcome wire_shake_hands(struct wire *wire);
int wire_keep_ticket(SSL *ssl, SSL_SESSION *ticket);

/* Add what was read, or written, to the length. */
enum outcome wire_read(struct wire *wire, char *to, size_t room, size_t *length);
enum outcome wire_write(struct wire *wire, const char *from, size_t octets, size_t *length);

/* Close; with a closing alert only where all went well, as TLS asks for. */
void wire_close(struct wire *wire, bool in_order);

#endif
