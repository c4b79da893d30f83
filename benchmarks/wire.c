#include "wire.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/socket.h>
#include <unistd.h>

/* One TLS record: what a mail server hands to its TLS library at a time. */
enum { WRITE_OCTETS_MAX = 16384 };

bool wire_open(struct wire *wire, const struct sockaddr_in *gate, const struct sockaddr_in *source)
{
    static const int on = 1;
    wire->ssl = NULL;
    wire->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (wire->fd < 0)
        return false;
    setsockopt(wire->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    /* The port is chosen when the gate's is known, or the ports of one source would be used up sooner. */
    setsockopt(wire->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(wire->fd, (const struct sockaddr *)source, sizeof *source) < 0)
        return false;
    return connect(wire->fd, (const struct sockaddr *)gate, sizeof *gate) == 0 || errno == EINPROGRESS;
}

void wire_start_tls(struct wire *wire, SSL_CTX *context)
{
    wire->ssl = SSL_new(context);
    SSL_set_app_data(wire->ssl, wire);
    SSL_set_fd(wire->ssl, wire->fd);
    SSL_set_tlsext_host_name(wire->ssl, "mx.example.org");
    if (wire->ticket)
        SSL_set_session(wire->ssl, wire->ticket);
    SSL_set_connect_state(wire->ssl);
}

int wire_keep_ticket(SSL *ssl, SSL_SESSION *ticket)
{
    struct wire *wire = SSL_get_app_data(ssl);
    SSL_SESSION_free(wire->ticket);
    wire->ticket = ticket;
    return 1;
}

static enum outcome tls_outcome(struct wire *wire, int result)
{
    int error = SSL_get_error(wire->ssl, result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? AGAIN : CLOSED;
}

enum outcome wire_shake_hands(struct wire *wire)
{
    int result = SSL_do_handshake(wire->ssl);
    return result == 1 ? GOT_SOME : tls_outcome(wire, result);
}

enum outcome wire_read(struct wire *wire, char *to, size_t room, size_t *length)
{
    ssize_t got = wire->ssl ? SSL_read(wire->ssl, to, (int)room) : read(wire->fd, to, room);
    if (got <= 0 && wire->ssl)
        return tls_outcome(wire, (int)got);
    if (got < 0 && errno == EAGAIN)
        return AGAIN;
    if (got <= 0)
        return CLOSED;
    *length += (size_t)got;
    return GOT_SOME;
}

enum outcome wire_write(struct wire *wire, const char *from, size_t octets, size_t *length)
{
    int size = octets < WRITE_OCTETS_MAX ? (int)octets : WRITE_OCTETS_MAX;
    ssize_t put = wire->ssl ? SSL_write(wire->ssl, from, size) : write(wire->fd, from, (size_t)size);
    if (put <= 0 && wire->ssl)
        return tls_outcome(wire, (int)put);
    if (put < 0)
        return errno == EAGAIN ? AGAIN : CLOSED;
    *length += (size_t)put;
    return GOT_SOME;
}

void wire_close(struct wire *wire, bool in_order)
{
    if (wire->ssl && in_order)
        SSL_shutdown(wire->ssl);
    SSL_free(wire->ssl);
    ERR_clear_error();
    close(wire->fd);
}
