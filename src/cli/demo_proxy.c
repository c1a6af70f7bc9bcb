/* A small HTTP proxy in a process of its own, between the devices and the server: it can hold an
 * answer back after the server has committed, and can send every request twice.
 *
 * It serves one connection at a time, which is all the demo needs, and takes commands over a socket
 * pair: 'P' pass, 'T' twice, '1'..'9' hold the n-th sync's answer (then says 'H' and waits for 'D',
 * drop), 'Q' how many were doubled. Its end of the pair closing ends it. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/demo.h"

#define MESSAGE_BYTES_MAX (80u << 20)

typedef struct {
    int listener, control, server_port;
    int upstream; /* connection to the server of the present client, or -1 */
    bool twice;
    int hold_in; /* syncs until one is held; 0 = none */
    unsigned char doubled;
    bool over; /* the demo closed its end */
} proxy;

static int connect_to(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int on = 1;
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    if (fd >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return fd;
}

static bool write_all(int fd, const char *data, size_t len) {
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n <= 0) {
            return false;
        }
        data += n;
        len -= (size_t)n;
    }
    return true;
}

bool demo_http_ok(int port, const char *path) {
    char text[256];
    int fd = connect_to(port);
    if (fd < 0) {
        return false;
    }
    snprintf(text, sizeof text,
             "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n", path, port);
    bool ok = write_all(fd, text, strlen(text)) && read(fd, text, 12) == 12 &&
              memcmp(text + 9, "200", 3) == 0;
    close(fd);
    return ok;
}

static void take_command(proxy *p) {
    char command = 0;
    if (read(p->control, &command, 1) != 1) {
        p->over = true;
    } else if (command == 'Q') {
        (void)write_all(p->control, (const char *)&p->doubled, 1);
    } else if (command >= '1' && command <= '9') {
        p->hold_in = command - '0';
    } else {
        p->twice = command == 'T';
        p->doubled = 0;
    }
}

static void take_waiting_commands(proxy *p) {
    struct pollfd wait = {p->control, POLLIN, 0};
    while (!p->over && poll(&wait, 1, 0) > 0) {
        take_command(p);
    }
}

/* Value of Content-Length in the head, 0 when there is none. */
static size_t body_length(const char *head, size_t head_len) {
    static const char name[] = "\r\ncontent-length:";
    for (size_t i = 0; i + sizeof name <= head_len; i++) {
        if (strncasecmp(head + i, name, sizeof name - 1) == 0) {
            return (size_t)strtoul(head + i + sizeof name - 1, NULL, 10);
        }
    }
    return 0;
}

/* Bytes of the whole message when its head has arrived, else 0. */
static size_t message_length(const bytes *b) {
    for (size_t i = 3; i < b->len; i++) {
        if (memcmp(b->ptr + i - 3, "\r\n\r\n", 4) == 0) {
            return i + 1 + body_length(b->ptr, i + 1);
        }
    }
    return 0;
}

/* Reads one message. Watches the demo's commands while it waits. */
static bool read_message(proxy *p, int fd, bytes *b) {
    char buffer[65536];
    size_t want = 0;
    bytes_clear(b);
    while (want == 0 || b->len < want) {
        struct pollfd waits[] = {{fd, POLLIN, 0}, {p->control, POLLIN, 0}};
        if (poll(waits, 2, -1) < 0) {
            return false;
        }
        if (waits[1].revents) {
            take_command(p);
        }
        if (p->over) {
            return false;
        }
        if (waits[0].revents) {
            ssize_t n = read(fd, buffer, sizeof buffer);
            if (n <= 0) {
                return false;
            }
            bytes_add(b, buffer, (size_t)n);
            want = want ? want : message_length(b);
        }
        if (b->failed || want > MESSAGE_BYTES_MAX) {
            return false;
        }
    }
    return true;
}

/* One exchange with the server; a connection it closed in the meantime is opened again once. */
static bool exchange(proxy *p, const bytes *request, bytes *answer) {
    for (int attempt = 0; attempt < 2; attempt++) {
        bool fresh = p->upstream < 0;
        p->upstream = fresh ? connect_to(p->server_port) : p->upstream;
        if (p->upstream < 0) {
            return false;
        }
        if (write_all(p->upstream, request->ptr, request->len) &&
            read_message(p, p->upstream, answer)) {
            return true;
        }
        close(p->upstream);
        p->upstream = -1;
        if (fresh || p->over) {
            return false;
        }
    }
    return false;
}

static bool is_sync(const bytes *request) {
    static const char start[] = "POST /v1/sync ";
    return request->len >= sizeof start && memcmp(request->ptr, start, sizeof start - 1) == 0;
}

/* Reports the held answer and waits for the word to drop it. */
static void hold(proxy *p) {
    char command = 0;
    p->hold_in = 0;
    p->over = !write_all(p->control, "H", 1) || read(p->control, &command, 1) != 1;
}

static void serve_client(proxy *p, int client) {
    bytes request, answer;
    bytes_init(&request, NULL, MESSAGE_BYTES_MAX);
    bytes_init(&answer, NULL, MESSAGE_BYTES_MAX);
    while (read_message(p, client, &request)) {
        take_waiting_commands(p);
        if (p->twice) {
            if (!exchange(p, &request, &answer)) {
                break;
            }
            p->doubled++;
        }
        if (!exchange(p, &request, &answer)) {
            break;
        }
        if (p->hold_in > 0 && is_sync(&request) && --p->hold_in == 0) {
            hold(p);
            break;
        }
        if (!write_all(client, answer.ptr, answer.len)) {
            break;
        }
    }
    if (p->upstream >= 0) {
        close(p->upstream);
        p->upstream = -1;
    }
    bytes_deinit(&request);
    bytes_deinit(&answer);
}

static void run(proxy *p) {
    signal(SIGPIPE, SIG_IGN);
    while (!p->over) {
        struct pollfd waits[] = {{p->listener, POLLIN, 0}, {p->control, POLLIN, 0}};
        if (poll(waits, 2, -1) < 0) {
            return;
        }
        if (waits[1].revents) {
            take_command(p);
        }
        if (!p->over && waits[0].revents) {
            int client = accept(p->listener, NULL, NULL);
            if (client >= 0) {
                serve_client(p, client);
                close(client);
            }
        }
    }
}

static int listen_anywhere(int *port) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(fd, 16) != 0 || getsockname(fd, (struct sockaddr *)&address, &len) != 0) {
        close(fd);
        return -1;
    }
    *port = ntohs(address.sin_port);
    return fd;
}

bool demo_proxy_start(demo_world *w) {
    int pair[2];
    int spare = listen_anywhere(&w->server_port); /* a port that is free now, for the server */
    int listener = listen_anywhere(&w->proxy_port);
    if (spare >= 0) {
        close(spare);
    }
    if (spare < 0 || listener < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
        snprintf(w->why, sizeof w->why, "no free port on the loopback interface");
        return false;
    }
    w->proxy = fork();
    if (w->proxy == 0) {
        proxy p = {.listener = listener,
                   .control = pair[1],
                   .server_port = w->server_port,
                   .upstream = -1};
        close(pair[0]);
        run(&p);
        _exit(0);
    }
    close(listener);
    close(pair[1]);
    w->proxy_control = pair[0];
    return w->proxy > 0;
}

void demo_proxy_stop(demo_world *w) {
    if (w->proxy > 0) {
        close(w->proxy_control);
        (void)demo_wait(w->proxy);
        w->proxy = 0;
    }
}

static void command(demo_world *w, char letter) {
    (void)write_all(w->proxy_control, &letter, 1);
}

void demo_proxy_pass(demo_world *w) {
    command(w, 'P');
}
void demo_proxy_twice(demo_world *w) {
    command(w, 'T');
}
void demo_proxy_drop(demo_world *w) {
    command(w, 'D');
}
void demo_proxy_hold(demo_world *w, int nth) {
    command(w, (char)('0' + nth));
}

static bool read_byte(demo_world *w, unsigned char *byte) {
    struct pollfd wait = {w->proxy_control, POLLIN, 0};
    return poll(&wait, 1, DEMO_WAIT_MS) > 0 && read(w->proxy_control, byte, 1) == 1;
}

bool demo_proxy_wait_held(demo_world *w) {
    unsigned char byte = 0;
    if (!read_byte(w, &byte) || byte != 'H') {
        snprintf(w->why, sizeof w->why, "no answer came past the proxy");
        return false;
    }
    return true;
}

int demo_proxy_doubled(demo_world *w) {
    unsigned char byte = 0;
    command(w, 'Q');
    return read_byte(w, &byte) ? byte : 0;
}
