/* The limit: one event written to N connections by bare send(2), nothing else.
 *
 *   bare_send PORT N EVENTS BYTES
 *
 * Accepts N connections of bench/subscribers.c, answers each with a head, then sends EVENTS events, 50 ms apart, and
 * prints the CPU microseconds (user and system) of one delivery.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double cpu_s(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int n = atoi(argv[2]), events = atoi(argv[3]), pad = atoi(argv[4]), one = 1;
    struct rlimit files = {n + 64, n + 64};
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (void *)&at, sizeof at) || listen(listener, 4096)) return 1;
    int *fds = malloc(n * sizeof *fds);
    char buffer[4096];
    const char *head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    for (int i = 0; i < n; i++) {
        fds[i] = accept(listener, NULL, NULL);
        setsockopt(fds[i], IPPROTO_TCP, 1, &one, sizeof one);
        if (read(fds[i], buffer, sizeof buffer) <= 0 || write(fds[i], head, strlen(head)) < 0) return 1;
    }
    usleep(500000);
    double before = cpu_s();
    for (int e = 0; e < events; e++) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        int size = snprintf(buffer, sizeof buffer, "id: %020d\ndata: {\"n\":%d,\"t\":%lld}\n\n", e, e,
                            t.tv_sec * 1000000000LL + t.tv_nsec);
        while (size < pad) buffer[size++] = '\n';
        for (int i = 0; i < n; i++) send(fds[i], buffer, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        usleep(50000);
    }
    printf("{\"us\":%.2f}\n", (cpu_s() - before) / ((double)n * events) * 1e6);
    fflush(stdout);
    usleep(300000);
    return 0;
}
