/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the programs of a router and of the home agent have in common: the header of the tunnel, what
 * is asked of each packet on its way in or out, and counters. The includer says how many TUNNELS
 * there are, and which of its packets may have their outer packet cut: DONT_FRAGMENT, 0 for all.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define LANES 16 /* counters are by CPU, modulo this */
#define GLOBALS 32
#define BLOCK 32 /* counters in one report */
#define COUNTERS ((GLOBALS + 2 * TUNNELS + BLOCK - 1) / BLOCK * BLOCK)

#define NONE 0xffff

#define AF_INET 2
#define PORT 434
#define TYPE_AND_NEXT_HEADER 0x04040000 /* RFC 3519 3.3: tunnel data, IP in IP */
#define OVERHEAD 32 /* IPv4, UDP, tunnel data header */
#define OUTER_TTL 64
#ifndef DONT_FRAGMENT
#define DONT_FRAGMENT 0x4000
#endif
#define FRAGMENT 0x3fff
#define NOT_OURS TC_ACT_UNSPEC /* the next filter, else on as usual */

struct outer {
	struct iphdr ip;
	struct udphdr udp;
	__be32 tunnel;
};

struct tunnel {
	__be32 local;
	__be32 remote;
	__be32 via; /* next hop on the uplink */
	__u32 interface;
	__be16 port;
	__u16 mtu; /* of the inner packet */
	__u16 sum; /* of the outer header's words that are always the same, folded, as they lie there */
	__u8 up; /* 2: and TCP is told of the MTU */
	__u8 direct;
};

/* GLOBALS by enum counter, then for each slot packets received and sent. */
struct lane {
	__u64 value[COUNTERS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LANES);
	__type(key, __u32);
	__type(value, struct lane);
} lanes SEC(".maps");

static __always_inline struct lane *my_lane(void)
{
	__u32 index = bpf_get_smp_processor_id() % LANES;

	return bpf_map_lookup_elem(&lanes, &index);
}

static __always_inline bool unicast(__be32 address)
{
	__u8 first = bpf_ntohl(address) >> 24;

	return first != 0 && first != 127 && first < 224;
}

static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* True if the checksum of an IPv4 header without options is right. */
static __always_inline bool whole(const struct iphdr *ip)
{
	const __u32 *word = (const __u32 *)ip;

	return folded((__u64)word[0] + word[1] + word[2] + word[3] + word[4]) == 0xffff;
}

static __always_inline void lower_ttl(struct iphdr *ip)
{
	__u32 sum = ip->check + bpf_htons(0x100); /* RFC 1624 */

	ip->check = sum + (sum >= 0xffff);
	ip->ttl--;
}

/* Write another ECN field, 0 to 3, into an IPv4 header. */
static __always_inline void remark(struct iphdr *ip, int ecn)
{
	__u8 tos = (ip->tos & ~3) | ecn;
	__u32 sum = (__u16)~ip->check + bpf_htons(tos) + (__u16)~bpf_htons(ip->tos);

	ip->check = ~folded(sum);
	ip->tos = tos;
}

/* The beginning of a TCP connection asks for segments that fit into the tunnel (RFC 6691 2): where
 * its first option is the MSS, as all stacks send it. 0: the other plane must look. Pointers into
 * the packet are void afterwards. at: of the TCP header in skb. */
static __always_inline bool clamp_at(struct __sk_buff *skb, struct tunnel *tunnel, __u32 at)
{
	struct {
		struct tcphdr tcp;
		__u8 kind, octets;
		__be16 mss;
	} head;
	__be16 mss = bpf_htons(tunnel->mtu - 40);

	if (bpf_skb_load_bytes(skb, at, &head.tcp, sizeof(head.tcp)) || !head.tcp.syn || head.tcp.doff <= 5)
		return true;
	if (bpf_skb_load_bytes(skb, at, &head, sizeof(head)) || head.kind != 2 || head.octets != 4)
		return false;
	if (bpf_ntohs(head.mss) <= bpf_ntohs(mss))
		return true;
	at += sizeof(head.tcp);
	bpf_l4_csum_replace(skb, at - 4, head.mss, mss, sizeof(mss));
	bpf_skb_store_bytes(skb, at + 2, &mss, sizeof(mss), 0);
	return true;
}

/* The same for the packet at `ip`, which is `at` octets into skb and may be read up to `end`: most
 * are no beginning, and are told by what can be read. */
static __always_inline bool clamp(struct __sk_buff *skb, struct tunnel *tunnel, struct iphdr *ip,
				  void *end, __u32 at)
{
	struct tcphdr *tcp = (void *)(ip + 1);

	if (ip->protocol != IPPROTO_TCP || tunnel->up < 2 || ip->frag_off & bpf_htons(0x1fff) ||
	    ((void *)(tcp + 1) <= end && !tcp->syn))
		return true;
	return clamp_at(skb, tunnel, at + sizeof(*ip));
}

/* Octets of the longest packet that is to leave, or 0: the userspace plane must decide. A packet
 * of the stack may still be many of gso_size octets of data each; *fixed says that gso_size stays. */
static __always_inline __u32 longest(struct __sk_buff *skb, struct iphdr *ip, void *end, bool *fixed,
				     __u32 mtu)
{
	__u32 size;

	*fixed = true;
	if (!skb->gso_size)
		return bpf_ntohs(ip->tot_len);
	if (ip->protocol == IPPROTO_UDP)
		return sizeof(*ip) + sizeof(struct udphdr) + skb->gso_size;
	if (ip->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = (void *)(ip + 1);

		if ((void *)(tcp + 1) > end)
			return 0;
		size = sizeof(*ip) + tcp->doff * 4 + skb->gso_size;
		if (size > mtu) { /* made to fit by bpf_skb_adjust_room, no sender has to know */
			*fixed = false;
			size -= OVERHEAD;
		}
		return size;
	}
	return 0;
}

/* How many packets this will be on the wire, gso_size being what it is there. */
static __always_inline __u32 packets(struct __sk_buff *skb, __u32 headers)
{
	__u32 size = skb->gso_size;

	return size ? (skb->len - headers + size - 1) / size : 1;
}

static __always_inline void count(struct lane *lane, __u32 index, __u32 by)
{
	/* The verifier wants the check where the index is used, not where the compiler knows it. */
	asm volatile("" : "+r"(index));
	if (index < COUNTERS)
		lane->value[index] += by;
}

/* The inner packet's ECN field after the tunnel (RFC 6040 4.2), -1: drop. */
static __always_inline int congestion(__u8 outside, __u8 inside)
{
	outside &= 3;
	inside &= 3;
	if (outside == 3)
		return inside ? 3 : -1;
	return outside == 1 && inside == 2 ? 1 : inside;
}

/* The outer header before an inner packet of `length` octets; the UDP checksum is none. */
static __always_inline void put_outer(struct outer *outer, struct tunnel *tunnel, __u8 tos, __u32 length)
{
	/* RFC 6864 4: what may be cut on the way needs a number of its own. */
	__be16 id = DONT_FRAGMENT ? 0 : bpf_get_prandom_u32();

	length += OVERHEAD;
	outer->ip.version = 4;
	outer->ip.ihl = 5;
	outer->ip.tos = tos;
	outer->ip.tot_len = bpf_htons(length);
	outer->ip.id = id;
	outer->ip.frag_off = bpf_htons(DONT_FRAGMENT);
	outer->ip.ttl = OUTER_TTL;
	outer->ip.protocol = IPPROTO_UDP;
	outer->ip.check = ~folded((__u32)tunnel->sum + id + outer->ip.frag_off + bpf_htons(tos) +
				  bpf_htons(length));
	outer->ip.saddr = tunnel->local;
	outer->ip.daddr = tunnel->remote;
	outer->udp.source = bpf_htons(PORT);
	outer->udp.dest = tunnel->port;
	outer->udp.len = bpf_htons(length - sizeof(struct iphdr));
	outer->udp.check = 0; /* the inner packet has its own */
	outer->tunnel = bpf_htonl(TYPE_AND_NEXT_HEADER);
}

/* The headers of a whole IPv4 packet in a tunnel datagram, neither with options; else NULL, and the
 * sockets decide. *length: octets of the inner packet, whose checksum nobody has looked at.
 * *last: the end of what may be read directly. */
static __always_inline struct outer *tunnel_data(struct __sk_buff *skb, __u32 *length, void **last)
{
	const __u32 wanted = ETH_HLEN + sizeof(struct outer) + sizeof(struct iphdr);
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct outer *outer;
	struct iphdr *ip;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return NULL;
	if (data + wanted > end) {
		if (skb->len < wanted || bpf_skb_pull_data(skb, wanted))
			return NULL;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		if (data + wanted > end)
			return NULL;
	}
	outer = data + ETH_HLEN;
	ip = (void *)(outer + 1);
	if (*(__u8 *)&outer->ip != 0x45 || outer->ip.protocol != IPPROTO_UDP ||
	    outer->udp.dest != bpf_htons(PORT) || outer->ip.frag_off & bpf_htons(FRAGMENT) ||
	    outer->tunnel != bpf_htonl(TYPE_AND_NEXT_HEADER) || *(__u8 *)ip != 0x45)
		return NULL;
	*length = bpf_ntohs(ip->tot_len);
	if (*length + OVERHEAD != bpf_ntohs(outer->ip.tot_len) || skb->vlan_present ||
	    *length + OVERHEAD != skb->len - ETH_HLEN || *length < sizeof(*ip) ||
	    *length + 12 != bpf_ntohs(outer->udp.len) || !whole(&outer->ip) || !ip->ttl)
		return NULL;
	*last = end; /* read once more, the compiler would keep half of it in the verifier's eyes */
	return outer;
}

/* An IPv4 header without options, behind `link` octets of link header; NULL if there is none. */
static __always_inline struct iphdr *inner(struct __sk_buff *skb, __u32 link, void **last)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + link;

	if (skb->protocol != bpf_htons(ETH_P_IP) || (void *)(ip + 1) > end || *(__u8 *)ip != 0x45)
		return NULL;
	*last = end;
	return ip;
}

/* Where the outer header is, after room was made or before it goes; NULL: drop. */
static __always_inline struct outer *outer_of(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct outer *outer = data + ETH_HLEN;

	return (void *)(outer + 1) + sizeof(struct iphdr) > end ? NULL : outer;
}

/* Take the outer header away; the inner packet, whose ECN field is `ecn` now. NULL: drop. */
static __always_inline struct iphdr *unwrap(struct __sk_buff *skb, int ecn)
{
	void *data, *end;
	struct iphdr *ip;

	if (bpf_skb_adjust_room(skb, -OVERHEAD, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return NULL;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ip = data + ETH_HLEN;
	if ((void *)(ip + 1) > end)
		return NULL;
	if ((ip->tos & 3) != ecn)
		remark(ip, ecn);
	return ip;
}
