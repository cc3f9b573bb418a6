/*
 * Sends datagrams at a steady rate, or counts them.
 *
 *     packets send ADDRESS PORT RATE SECONDS OCTETS [SPREAD STEP]
 *     packets count PORT
 *
 * send: RATE datagrams a second of OCTETS payload, 0 = as many as possible; with SPREAD to that many
 * addresses in turn, STEP apart. Below full speed eight leave at a time. Up to 16 due ones are given to the kernel in one call (UDP_SEGMENT)
 * and cut there: the interface must not take them as one (ethtool -K ... tx-udp-segmentation off).
 * Prints {"sent", "seconds", "cpu_ns"}. What could not be sent in time is given up, not sent later in
 * a burst: then `sent` is less than RATE * SECONDS.
 *
 * count: for each line on stdin prints {"received", "dropped", "cpu_ns"} since the start; dropped is
 * what its own queue had no room for. Ends with stdin.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif
#define MEMINFO_DROPS 8
#define MEMINFO_WORDS 9

#define BURST 16
#define MOST 1472
#define DEBT_S 0.01 /* what is due for longer is given up */
#define TOGETHER 8 /* so many become due while it sleeps: waking for each would cost more than to send it */
#define QUEUE (16 << 20)
#define BATCH 64

static double seconds(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static long long cpu_ns(void)
{
	return (long long)(seconds(CLOCK_PROCESS_CPUTIME_ID) * 1e9);
}

static void fatal(const char *what)
{
	perror(what);
	exit(1);
}

static int send_all(char **argv, int connected, int spread, uint32_t step)
{
	static char payload[BURST * MOST];
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
	double rate = atof(argv[4]), duration = atof(argv[5]);
	int octets = atoi(argv[6]), queue = QUEUE, at = 0;
	int udp = socket(AF_INET, SOCK_DGRAM, 0);
	struct iovec data = {payload, 0};
	struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = &data, .msg_iovlen = 1};
	double sent = 0, given_up = 0, began, now;
	uint32_t first;

	if (inet_pton(AF_INET, argv[2], &to.sin_addr) != 1 || octets < 1 || octets > MOST || spread < 1) {
		fprintf(stderr, "ADDRESS must be IPv4, OCTETS 1 to %d, SPREAD at least 1\n", MOST);
		return 2;
	}
	setsockopt(udp, SOL_SOCKET, SO_SNDBUFFORCE, &queue, sizeof(queue));
	if (setsockopt(udp, SOL_UDP, UDP_SEGMENT, &octets, sizeof(octets)) < 0)
		fatal("UDP_SEGMENT");
	if (connected && connect(udp, (struct sockaddr *)&to, sizeof(to)) < 0)
		fatal("connect");
	if (connected)
		message.msg_name = NULL, message.msg_namelen = 0;
	first = ntohl(to.sin_addr.s_addr);
	began = now = seconds(CLOCK_MONOTONIC);
	while (now - began < duration) {
		double due = rate > 0 ? rate * (now - began) - sent - given_up : BURST;

		if (rate > 0 && due > rate * DEBT_S + BURST) {
			given_up += due - BURST;
			due = BURST;
		}
		if (due >= 1) {
			int count = due < BURST ? (int)due : BURST;

			data.iov_len = (size_t)count * octets;
			if (!connected) {
				to.sin_addr.s_addr = htonl(first + at * step);
				at = (at + 1) % spread;
			}
			/* An ICMP error about an earlier one is told once and is no reason to end. */
			if (sendmsg(udp, &message, 0) >= 0)
				sent += count;
			else if (errno != ECONNREFUSED && errno != EHOSTUNREACH && errno != ENOBUFS)
				fatal("sendmsg");
		} else {
			double wait = (TOGETHER - due) / rate;
			struct timespec nap = {(time_t)wait, (long)((wait - (time_t)wait) * 1e9)};

			clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
		}
		now = seconds(CLOCK_MONOTONIC);
	}
	printf("{\"sent\": %.0f, \"seconds\": %.6f, \"cpu_ns\": %lld}\n", sent, now - began, cpu_ns());
	return 0;
}

static int count_all(const char *port)
{
	static char heads[BATCH][16];
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	int queue = QUEUE;
	int udp = socket(AF_INET, SOCK_DGRAM, 0);
	struct pollfd both[] = {{udp, POLLIN, 0}, {0, POLLIN, 0}};
	unsigned long long received = 0;

	setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &queue, sizeof(queue));
	if (bind(udp, (struct sockaddr *)&here, sizeof(here)) < 0)
		fatal("bind");
	memset(messages, 0, sizeof(messages));
	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){heads[i], sizeof(heads[i])};
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	for (;;) {
		char line[64];

		if (poll(both, 2, -1) < 0 && errno != EINTR)
			fatal("poll");
		for (int got = BATCH; both[0].revents && got == BATCH;) {
			got = recvmmsg(udp, messages, BATCH, MSG_DONTWAIT, NULL);
			received += got > 0 ? got : 0;
		}
		if (both[1].revents) {
			uint32_t info[MEMINFO_WORDS] = {0};
			socklen_t octets = sizeof(info);

			if (read(0, line, sizeof(line)) <= 0)
				return 0;
			getsockopt(udp, SOL_SOCKET, SO_MEMINFO, info, &octets);
			printf("{\"received\": %llu, \"dropped\": %u, \"cpu_ns\": %lld}\n", received,
			       info[MEMINFO_DROPS], cpu_ns());
			fflush(stdout);
		}
	}
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "count"))
		return count_all(argv[2]);
	if (argc == 7 && !strcmp(argv[1], "send"))
		return send_all(argv, 1, 1, 0);
	if (argc == 9 && !strcmp(argv[1], "send"))
		return send_all(argv, 0, atoi(argv[7]), strtoul(argv[8], NULL, 10));
	fprintf(stderr, "usage: packets send ADDRESS PORT RATE SECONDS OCTETS [SPREAD STEP] | count PORT\n");
	return 2;
}
