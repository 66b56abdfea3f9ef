/* A load client that costs less than the server: N subscribers of one event stream, in one epoll loop.
 *
 *   subscribers PORT PATH N EVENTS STALLED SECONDS
 *
 * Connects N times, and says "ready", how many answers have begun and in how many seconds, when all have or the time is
 * up. Reads until each subscriber that is not one of the STALLED has EVENTS events, or SECONDS have passed. An event's
 * data is {"n":<its number>,"t":<CLOCK_MONOTONIC, ns>}. SIGTERM ends it before.
 * It prints one line of JSON: deliveries, lost, doubled, connections that were closed on it, the fewest heartbeats
 * (a comment or an id, after "ready") that one of them got, and the latencies in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    int fd, started, fill;
    long seen, lost, doubled, heartbeats;
    char line[192];
} Subscriber;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static float *latencies;
static long kept, room, deliveries;
static volatile sig_atomic_t ended;

static void end(int number) { ended = number; }

static void event(Subscriber *s, double arrived) {
    if (s->line[0] == ':' || !strncmp(s->line, "id:", 3)) s->heartbeats++;
    char *n = strstr(s->line, "\"n\":"), *t = strstr(s->line, "\"t\":");
    if (strncmp(s->line, "data: ", 6) || !n || !t) return;
    long number = atol(n + 4);
    if (number < s->seen) s->doubled++;
    else s->lost += number - s->seen;
    s->seen = number + 1;
    deliveries++;
    if (kept < room) latencies[kept++] = (float)((arrived - atoll(t + 4) / 1e9) * 1e6);
}

static void feed(Subscriber *s, const char *data, ssize_t size, double arrived) {
    for (ssize_t i = 0; i < size; i++) {
        char c = data[i];
        if (c == '\n' || c == '\r') {
            s->line[s->fill] = 0;
            if (s->fill) event(s, arrived);
            s->fill = 0;
        } else if (s->fill < (int)sizeof s->line - 1) {
            s->line[s->fill++] = c;
        }
    }
}

/* Whether this is the first of what a subscriber gets; a refusal ends all. */
static int begun(Subscriber *s, const char *data, ssize_t size) {
    if (s->started) return 0;
    if (size < 12 || strncmp(data, "HTTP/1.1 2", 10)) {
        fprintf(stderr, "refused: %.*s\n", size < 40 ? (int)size : 40, data);
        exit(1);
    }
    return s->started = 1;
}

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    int port = atoi(argv[1]), n = atoi(argv[3]), stalled = atoi(argv[5]);
    long events = atol(argv[4]);
    double limit = atof(argv[6]), began = now_s();
    struct rlimit files = {n + 64, n + 64};
    setrlimit(RLIMIT_NOFILE, &files);
    room = (events ? events : 1) * n < 20000000 ? (events ? events : 1) * n : 20000000;
    latencies = malloc(room * sizeof *latencies);
    Subscriber *subscribers = calloc(n, sizeof *subscribers);
    int poll = epoll_create1(0), started = 0;
    struct epoll_event ready[512];
    static char buffer[1 << 16], request[512];
    const char *form = "GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
    int length = snprintf(request, sizeof request, form, argv[2]);
    for (int i = 0; i < n; i++) {
        /* One source address has some 28,000 ports. */
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int fd = socket(AF_INET, SOCK_STREAM, 0), small = 4096;
        if (i < stalled) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        if (connect(fd, (void *)&to, sizeof to) || write(fd, request, length) != length) {
            perror("connect");
            return 1;
        }
        fcntl(fd, F_SETFL, O_NONBLOCK);
        subscribers[i].fd = fd;
        struct epoll_event want = {.events = EPOLLIN, .data.u32 = i};
        epoll_ctl(poll, EPOLL_CTL_ADD, fd, &want);
        /* Keep the server's backlog short: read what has begun. */
        int some = epoll_wait(poll, ready, 512, i - started > 256 ? 10 : 0);
        for (int j = 0; j < some; j++) {
            Subscriber *s = &subscribers[ready[j].data.u32];
            ssize_t size = read(s->fd, buffer, sizeof buffer);
            if (size > 0) started += begun(s, buffer, size), feed(s, buffer, size, now_s());
        }
    }
    while (started < n && now_s() - began < limit) {
        int some = epoll_wait(poll, ready, 512, 100);
        for (int j = 0; j < some; j++) {
            Subscriber *s = &subscribers[ready[j].data.u32];
            ssize_t size = read(s->fd, buffer, sizeof buffer);
            if (size > 0) started += begun(s, buffer, size), feed(s, buffer, size, now_s());
        }
    }
    double connected = now_s() - began;
    for (int i = 0; i < n; i++) subscribers[i].heartbeats = 0; /* what greeted it is none */
    signal(SIGTERM, end);
    for (int i = 0; i < stalled; i++) epoll_ctl(poll, EPOLL_CTL_DEL, subscribers[i].fd, NULL);
    printf("ready %d %.6f\n", started, connected);
    fflush(stdout);
    int complete = 0, closed = 0;
    while (!ended && (events == 0 || complete < n - stalled) && now_s() - began < limit) {
        int some = epoll_wait(poll, ready, 512, 100);
        double arrived = now_s();
        for (int j = 0; j < some; j++) {
            Subscriber *s = &subscribers[ready[j].data.u32];
            long before = s->seen;
            ssize_t size = read(s->fd, buffer, sizeof buffer);
            if (size == 0 || (size < 0 && errno != EAGAIN)) {
                closed++;
                epoll_ctl(poll, EPOLL_CTL_DEL, s->fd, NULL);
                continue;
            }
            if (size > 0) feed(s, buffer, size, arrived);
            if (before < events && s->seen >= events) complete++;
        }
    }
    long lost = 0, doubled = 0, least = n > stalled ? subscribers[stalled].heartbeats : 0;
    for (int i = stalled; i < n; i++) {
        lost += subscribers[i].lost + (events - subscribers[i].seen);
        doubled += subscribers[i].doubled;
        if (subscribers[i].heartbeats < least) least = subscribers[i].heartbeats;
    }
    qsort(latencies, kept, sizeof *latencies, by_size);
    printf("{\"deliveries\":%ld,\"lost\":%ld,\"doubled\":%ld,\"closed\":%d,\"heartbeats\":%ld,"
           "\"p50_us\":%.0f,\"p99_us\":%.0f,\"max_us\":%.0f}\n",
           deliveries, lost, doubled, closed, least, kept ? latencies[kept / 2] : 0,
           kept ? latencies[(long)(kept * 0.99)] : 0, kept ? latencies[kept - 1] : 0);
    return 0;
}
