/* Addresses of clients, and lists of networks. Pure.
 *
 * Behind a proxy the peer of a connection is the proxy; who is behind it stands in a header that
 * anybody can send. It is believed from the right, as long as the one who wrote an entry is a proxy
 * that the server's owner has named: an entry a client made up lies further left. */
#ifndef SERVER_ADDRESS_H
#define SERVER_ADDRESS_H

#include "server/http.h"

/* IPv6, or IPv4 as ::ffff:a.b.c.d, in network order. */
typedef struct {
    unsigned char bytes[16];
} address;

#define NETWORKS_MAX 32
typedef struct {
    struct {
        address first;
        int bits; /* of 128 */
    } items[NETWORKS_MAX];
    size_t count;
} network_list;

typedef enum { PROXY_X_FORWARDED_FOR, PROXY_FORWARDED } proxy_header;

/* "192.0.2.1" or "2001:db8::1", nothing around it. */
bool address_parse(slice text, address *out);
/* Commas between networks, "198.0.0.0/8, ::1", or "none". false: *bad is the part that is wrong. */
bool networks_parse(const char *text, network_list *out, slice *bad);
bool networks_have(const network_list *list, const address *a);
/* Whose request it is: `peer`, or who stands behind it according to the one kind of header that the
 * proxies write. An entry that is no address ends the walk at the proxy that wrote it. */
address address_of_client(const network_list *proxies, proxy_header kind, const address *peer,
                          const http_head *head);
/* What limits count by: the address, of IPv6 its /64, which is what one customer has. */
address address_group(const address *a);

#endif
