/*
 * The least that a tunnel daemon does: packets of a TUN device go to one peer by UDP, and back. No
 * header of its own, no lookup, no check, no counter, no encryption. It is the userspace limit that
 * `make bench` compares with: one packet a read and a write, one thread, queues drained before the
 * next poll. Not for use: whoever knows the port is let in.
 *
 *     tun_forwarder DEVICE LOCAL REMOTE PORT
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define DRAIN 64 /* packets of one direction before the other has its turn */
#define QUEUE (8 << 20)

static void fatal(const char *what)
{
	perror(what);
	exit(1);
}

static int open_tun(const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
	int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (tun < 0 || ioctl(tun, TUNSETIFF, &request) < 0)
		fatal("/dev/net/tun");
	return tun;
}

static int open_udp(const char *local, const char *remote, const char *port)
{
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	struct sockaddr_in there = here;
	int queue = QUEUE;
	int udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	if (inet_pton(AF_INET, local, &here.sin_addr) != 1 ||
	    inet_pton(AF_INET, remote, &there.sin_addr) != 1) {
		fprintf(stderr, "LOCAL and REMOTE must be IPv4 addresses\n");
		exit(2);
	}
	/* As large as the queues of haaro's own plane, or the comparison would be of queues. */
	setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &queue, sizeof(queue));
	setsockopt(udp, SOL_SOCKET, SO_SNDBUFFORCE, &queue, sizeof(queue));
	if (bind(udp, (struct sockaddr *)&here, sizeof(here)) < 0 ||
	    connect(udp, (struct sockaddr *)&there, sizeof(there)) < 0)
		fatal("UDP socket");
	return udp;
}

static void drain(int from, int to)
{
	static char packet[65536];

	for (int i = 0; i < DRAIN; i++) {
		ssize_t octets = read(from, packet, sizeof(packet));

		/* An error left by an ICMP message, or a packet that is refused, ends nothing. */
		if (octets < 0 && errno == EAGAIN)
			return;
		if (octets > 0 && write(to, packet, octets) < 0 && errno == EBADF)
			fatal("write");
	}
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fprintf(stderr, "usage: tun_forwarder DEVICE LOCAL REMOTE PORT\n");
		return 2;
	}
	int tun = open_tun(argv[1]);
	int udp = open_udp(argv[2], argv[3], argv[4]);
	struct pollfd both[] = {{tun, POLLIN, 0}, {udp, POLLIN, 0}};

	for (;;) {
		if (poll(both, 2, -1) < 0 && errno != EINTR)
			fatal("poll");
		if (both[0].revents)
			drain(tun, udp);
		if (both[1].revents)
			drain(udp, tun);
	}
}
