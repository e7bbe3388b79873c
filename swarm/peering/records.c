/*
 * From a socket to decrypted bytes in one call: recv, the TLS connection's memory BIO, SSL_read, and so on until
 * the socket is empty or no more has room.
 *
 * Why: a record is 16 KiB at most, and what lies between the kernel and OpenSSL in Python costs as much for each as
 * decrypting it. Here bytes pass through pieces that stay in the core's own cache, and Python's lock is free meanwhile.
 *
 * OpenSSL is not linked: its functions are pyOpenSSL's, handed over as pointers by records.py, which loads this through
 * ctypes and decides when it is used. Nothing here knows what the bytes are, nor judges an error: whatever is not
 * a full record for us is left for the caller, who asks OpenSSL again.
 */

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

/* The most that a record becomes (RFC 8446, 5.1), and more than it is on the wire. */
#define PLAIN 16384
#define RECORD (PLAIN + 512)

#define WANT_READ 2 /* SSL_ERROR_WANT_READ */

enum ending { LATER, DONE, LOST, TOLD };

struct openssl {
    int (*ssl_read)(void *ssl, void *into, int size);
    int (*ssl_get_error)(void *ssl, int result);
    int (*bio_write)(void *bio, void *data, int size);
};

/* Decrypt all there is; is it because OpenSSL wants more that there is no more? */
static int decrypt(const struct openssl *openssl, void *ssl, char *into, size_t size, size_t *got)
{
    int more = 1;
    while (size - *got >= PLAIN && (more = openssl->ssl_read(ssl, into + *got, PLAIN)) > 0)
        *got += (size_t)more;
    return more > 0 || openssl->ssl_get_error(ssl, more) == WANT_READ;
}

/*
 * Read what socket `fd` has, decrypt it, put it into `into`, in pieces of at most `piece` bytes through `staging`.
 *
 * As long as there is room for all that one piece more can become, so that nothing whole is ever left behind in
 * OpenSSL: what is left, less than a record or still in the socket, makes the socket readable when it can go on.
 *
 * Returns how many bytes are in `into`; `*ending` says why no more are: LATER, the socket is empty or `into` is full;
 * DONE, the other end closed; LOST, the socket failed; TOLD, OpenSSL said something else than that it wants more.
 */
size_t swarm_records_receive(const struct openssl *openssl, void *ssl, void *bio, int fd, char *staging, size_t piece,
                             char *into, size_t size, int *ending)
{
    size_t got = 0;
    ssize_t came = (ssize_t)piece;
    for (*ending = LATER; size - got >= piece + 2 * RECORD; ) {
        if ((size_t)came < piece)
            return got; /* That was all there was: the kernel need not be asked a second time. */
        do
            came = recv(fd, staging, piece, MSG_DONTWAIT);
        while (came < 0 && errno == EINTR);
        if (came < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return got;
        if (came <= 0 || openssl->bio_write(bio, staging, (int)came) != (int)came) {
            *ending = came == 0 ? DONE : LOST;
            return got;
        }
        if (!decrypt(openssl, ssl, into, size, &got)) {
            *ending = TOLD;
            return got;
        }
    }
    return got;
}
