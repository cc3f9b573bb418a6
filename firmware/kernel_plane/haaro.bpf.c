// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The kernel data plane: packets into and out of RFC 3519 UDP tunnels, at tc.
 *
 * Owns the fast path only. What it does not take (fragments of the outer packet, IP options, packets
 * that are too big, keepalives, signalling, anything for the home address) goes on as if it was not
 * there, to the sockets of the userspace plane, which stays the judge of all of that. What it
 * refuses it drops and counts under the userspace plane's reasons.
 *
 *   to_tunnel      egress of the veth pair's kernel end: what the kernel routed into the tunnels
 *   lan_to_tunnel  ingress of a LAN interface, if configured: the same without the kernel's forwarding
 *   from_tunnel    ingress of an uplink: out of the tunnel, then to the veth pair or to the LAN
 *   from_pair      ingress of the pair's other end: what from_tunnel had the pair cut
 *   report         ingress of the veth pair's kernel end: answers a request for counters
 *
 * firmware/haaro/dataplane/kernel.py fills the maps; what it writes is laid out here. Addresses and
 * ports are in network order, all else in the order of the host. TUNNELS can be set on the
 * compiler's command line; the programs know nothing of what a slot means.
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

#ifndef TUNNELS
#define TUNNELS 130 /* two banks of 65: the tables of an earlier process are held for a while */
#endif
#define PREFIXES 16384
#define LANS 8
#define LANES 16 /* counters are by CPU, modulo this */
#define GLOBALS 32
#define BLOCK 32 /* counters in one report */
#define COUNTERS ((GLOBALS + 2 * TUNNELS + BLOCK - 1) / BLOCK * BLOCK)

#define NONE 0xffff
#define HINTS 256
#define HINT_EVERY_NS 200000000ULL
#define DEAD_NS 60000000000ULL /* a control plane that asks for no counters for that long is gone */
#define ETHERTYPE 0x88b5 /* IEEE 802 local experimental: between these programs and their control plane */
#define HINT_MARK 0x02

#define AF_INET 2
#define PORT 434
#define TYPE_AND_NEXT_HEADER 0x04040000 /* RFC 3519 3.3: tunnel data, IP in IP */
#define OVERHEAD 32 /* IPv4, UDP, tunnel data header */
#define OUTER_TTL 64
#define DF 0x4000
#define FRAGMENT 0x3fff
#define NOT_OURS TC_ACT_UNSPEC /* the next filter, else on as usual */

/* Mark of a packet on its way through the pair to be cut, with the index of its interface. */
#define CUT 0x43400000
#define INTERFACE 0xffff

#define OWN 1
#define HOME 2
#define END 4
#define LOCAL 8 /* the main table routes it: not for lan_to_tunnel */

struct outer {
	struct iphdr ip;
	struct udphdr udp;
	__be32 tunnel;
};

struct prefix {
	__u32 length;
	__be32 address;
};

/* What holds for a prefix; Python has already handed down what it inherits from a shorter one. */
struct entry {
	__u16 route; /* slot, or NONE */
	__u16 source; /* slot of the direct tunnel packets from here may arrive by, or NONE */
	__u16 hint; /* or NONE */
	__u8 flags;
	__u8 lan; /* 1 + index in settings.lan if the host is there without a further router, or 0 */
};

struct end {
	__be32 remote;
	__be32 local;
	__u32 interface;
	__be16 port;
	__u16 zero;
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

struct lan {
	__u32 interface;
	__u32 mtu;
};

struct settings {
	__u32 kernel_end;
	__u32 our_end;
	__u8 ethernet[16]; /* header of a frame for the kernel's end, 14 octets */
	struct lan lan[LANS];
};

/* Index of a counter of lane.value; the names are those of dataplane/base.py. */
enum counter {
	OUT_FORWARDED,
	IN_FORWARDED,
	OUT_BAD_CHECKSUM,
	OUT_FOREIGN_SOURCE,
	OUT_NOT_UNICAST,
	OUT_OWN_DESTINATION,
	OUT_TUNNEL_END_DESTINATION,
	OUT_NO_ROUTE,
	OUT_TUNNEL_DOWN,
	IN_BAD_CHECKSUM,
	IN_NOT_UNICAST,
	IN_OWN_SOURCE,
	IN_TUNNEL_END_SOURCE,
	IN_UNCONFIRMED_SOURCE,
	IN_TUNNEL_END_DESTINATION,
	IN_FOREIGN_DESTINATION,
	IN_CONGESTION_UNMARKED,
};

/* GLOBALS by enum counter, then for each slot packets received and sent. */
struct lane {
	__u64 value[COUNTERS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TUNNELS);
	__type(key, __u32);
	__type(value, struct tunnel);
} tunnels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LANES);
	__type(key, __u32);
	__type(value, struct lane);
} lanes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HINTS);
	__type(key, __u32);
	__type(value, __u64);
} hinted SEC(".maps");

/* When the control plane last asked for counters. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} alive SEC(".maps");

struct table {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PREFIXES);
	__type(key, struct prefix);
	__type(value, struct entry);
} no_table SEC(".maps");

struct ends {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * TUNNELS);
	__type(key, struct end);
	__type(value, __u32);
} no_ends SEC(".maps");

/* A table is made anew, filled and put here at [0]; [1] is the one of an earlier process, held so
 * that peers that do not know of the restart are still heard. no_table and no_ends stay empty. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct table);
} table_now SEC(".maps") = {.values = {&no_table, &no_table}};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct ends);
} ends_now SEC(".maps") = {.values = {&no_ends, &no_ends}};

static __always_inline struct lane *my_lane(void)
{
	__u32 index = bpf_get_smp_processor_id() % LANES;

	return bpf_map_lookup_elem(&lanes, &index);
}

/* True if nobody is left who would take a tunnel back that is not one any more. */
static __always_inline bool forsaken(void)
{
	__u32 zero = 0;
	__u64 *asked = bpf_map_lookup_elem(&alive, &zero);

	return !asked || bpf_ktime_get_coarse_ns() - *asked > DEAD_NS;
}

static __always_inline struct entry *find(void *table, __be32 address)
{
	struct prefix key = {32, address};

	return bpf_map_lookup_elem(table, &key);
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

/* Tell the control plane that traffic wants a better path: a copy of the packet, cut by its socket
 * to the Ethernet header, whose source says which hint it is. */
static __always_inline void tell(struct __sk_buff *skb, __u16 hint)
{
	__u32 index = hint, zero = 0;
	__u64 now = bpf_ktime_get_ns();
	__u64 *last = bpf_map_lookup_elem(&hinted, &index);
	struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	struct ethhdr kept, told = {};

	if (!last || !set || now - *last < HINT_EVERY_NS)
		return;
	*last = now;
	if (bpf_skb_load_bytes(skb, 0, &kept, sizeof(kept)))
		return;
	told.h_source[0] = HINT_MARK;
	told.h_source[1] = hint >> 8;
	told.h_source[2] = hint;
	told.h_proto = bpf_htons(ETHERTYPE);
	bpf_skb_store_bytes(skb, 0, &told, sizeof(told), 0);
	bpf_clone_redirect(skb, set->our_end, BPF_F_INGRESS);
	bpf_skb_store_bytes(skb, 0, &kept, sizeof(kept), 0);
}

/* The beginning of a TCP connection asks for segments that fit into the tunnel (RFC 6691 2): where
 * its first option is the MSS, as all stacks send it. 0: the other plane must look. Pointers into
 * the packet are void afterwards. at: of the IPv4 header in skb. */
static __always_inline bool clamp(struct __sk_buff *skb, struct tunnel *tunnel, __u32 at)
{
	struct {
		struct tcphdr tcp;
		__u8 kind, octets;
		__be16 mss;
	} head;
	__be16 mss = bpf_htons(tunnel->mtu - 40);
	struct iphdr ip;

	if (tunnel->up < 2 || bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) ||
	    ip.protocol != IPPROTO_TCP || ip.frag_off & bpf_htons(0x1fff))
		return true;
	at += sizeof(ip);
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

static __always_inline int drop(struct lane *lane, enum counter reason, bool lan)
{
	/* At the LAN nothing is judged: the kernel may know the address. */
	if (lan)
		return NOT_OURS;
	lane->value[reason]++;
	return TC_ACT_SHOT;
}

static __always_inline int outbound(struct __sk_buff *skb, bool lan)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	struct bpf_redir_neigh via = {.nh_family = AF_INET};
	struct entry *source, *destination;
	struct tunnel *tunnel;
	struct outer *outer;
	struct lane *lane;
	__u32 zero = 0, slot, length, headers, size;
	__u64 flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	void *table;
	__u8 tos;
	bool fixed;

	if (skb->protocol != bpf_htons(ETH_P_IP) || (void *)(ip + 1) > end)
		return NOT_OURS;
	if (!lan && (skb->mark & ~INTERFACE) == CUT)
		return NOT_OURS;
	if (*(__u8 *)ip != 0x45)
		return NOT_OURS;
	if (lan && (skb->pkt_type != PACKET_HOST || skb->vlan_present || ip->ttl <= 1))
		return NOT_OURS;
	length = bpf_ntohs(ip->tot_len);
	if (length != skb->len - ETH_HLEN) {
		/* A short frame is padded; any other difference is not for us. */
		if (!lan || length > skb->len - ETH_HLEN || length < sizeof(*ip) || skb->gso_size)
			return NOT_OURS;
		if (bpf_skb_change_tail(skb, ETH_HLEN + length, 0))
			return NOT_OURS;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		ip = data + ETH_HLEN;
		if ((void *)(ip + 1) > end)
			return NOT_OURS;
	}
	lane = my_lane();
	table = bpf_map_lookup_elem(&table_now, &zero);
	if (!lane || !table || forsaken())
		return NOT_OURS;
	if (!whole(ip))
		return drop(lane, OUT_BAD_CHECKSUM, lan);
	source = find(table, ip->saddr);
	if (!source || !(source->flags & (OWN | HOME)))
		return drop(lane, OUT_FOREIGN_SOURCE, lan);
	if (!unicast(ip->daddr))
		return drop(lane, OUT_NOT_UNICAST, lan);
	destination = find(table, ip->daddr);
	if (!destination)
		return drop(lane, OUT_NO_ROUTE, lan);
	if (destination->flags & (OWN | HOME))
		return drop(lane, OUT_OWN_DESTINATION, lan);
	if (destination->flags & END)
		return drop(lane, OUT_TUNNEL_END_DESTINATION, lan);
	if (lan && destination->flags & LOCAL)
		return NOT_OURS;
	slot = destination->route;
	tunnel = bpf_map_lookup_elem(&tunnels, &slot);
	if (!tunnel || slot >= TUNNELS)
		return drop(lane, OUT_NO_ROUTE, lan);
	if (!tunnel->up)
		return drop(lane, OUT_TUNNEL_DOWN, lan);
	if (!tunnel->interface)
		return NOT_OURS;
	size = longest(skb, ip, end, &fixed, tunnel->mtu);
	if (!size || size > tunnel->mtu || !clamp(skb, tunnel, ETH_HLEN))
		return NOT_OURS;
	headers = ETH_HLEN + OVERHEAD + size - skb->gso_size + (fixed ? 0 : OVERHEAD);
	if (destination->hint < HINTS)
		tell(skb, destination->hint);
	if (fixed)
		flags |= BPF_F_ADJ_ROOM_FIXED_GSO;
	if (bpf_skb_adjust_room(skb, OVERHEAD, BPF_ADJ_ROOM_MAC, flags))
		return NOT_OURS;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	outer = data + ETH_HLEN;
	ip = (void *)(outer + 1);
	if ((void *)(ip + 1) > end)
		return TC_ACT_SHOT;
	if (lan)
		lower_ttl(ip);
	tos = ip->tos; /* RFC 6040 4.1, and RFC 2983 2.1: the uniform model */
	length += OVERHEAD;
	outer->ip.version = 4;
	outer->ip.ihl = 5;
	outer->ip.tos = tos;
	outer->ip.tot_len = bpf_htons(length);
	outer->ip.id = 0;
	outer->ip.frag_off = bpf_htons(DF);
	outer->ip.ttl = OUTER_TTL;
	outer->ip.protocol = IPPROTO_UDP;
	outer->ip.check = ~folded((__u32)tunnel->sum + bpf_htons(tos) + bpf_htons(length));
	outer->ip.saddr = tunnel->local;
	outer->ip.daddr = tunnel->remote;
	outer->udp.source = bpf_htons(PORT);
	outer->udp.dest = tunnel->port;
	outer->udp.len = bpf_htons(length - sizeof(struct iphdr));
	outer->udp.check = 0; /* the inner packet has its own */
	outer->tunnel = bpf_htonl(TYPE_AND_NEXT_HEADER);
	size = packets(skb, headers);
	lane->value[OUT_FORWARDED] += size;
	count(lane, GLOBALS + 2 * slot + 1, size);
	/* What the kernel routed still has that route, by which a packet that had to wait for ARP
	 * would be sent on: looking up the right one replaces it. */
	if (!lan)
		return bpf_redirect_neigh(tunnel->interface, NULL, 0, 0);
	via.ipv4_nh = tunnel->via;
	return bpf_redirect_neigh(tunnel->interface, &via, sizeof(via), 0);
}

SEC("tc/to_tunnel")
int to_tunnel(struct __sk_buff *skb)
{
	return outbound(skb, false);
}

SEC("tc/lan_to_tunnel")
int lan_to_tunnel(struct __sk_buff *skb)
{
	return outbound(skb, true);
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

/* The slot of the tunnel that a datagram came by, by the tables of this process (0) or of the one
 * before (1). */
static __always_inline __u32 tunnel_of(struct outer *outer, __u32 interface, __u32 process)
{
	struct end key = {outer->ip.saddr, outer->ip.daddr, interface, outer->udp.source, 0};
	void *ends = bpf_map_lookup_elem(&ends_now, &process);
	__u32 *slot = ends ? bpf_map_lookup_elem(ends, &key) : NULL;

	return slot ? *slot : NONE;
}

/* True if packets of this source may come by a direct tunnel, by the tables of that process. */
static __always_inline bool confirmed(__be32 source, __u32 slot, __u32 process)
{
	void *table = bpf_map_lookup_elem(&table_now, &process);
	struct entry *entry = table ? find(table, source) : NULL;

	return entry && entry->source == slot;
}

/* Hand the inner packet to the LAN, or to the kernel as coming from the veth pair. */
static __always_inline int deliver(struct __sk_buff *skb, struct settings *set, __u8 where, int ecn,
				   bool mark)
{
	struct bpf_redir_neigh via = {.nh_family = AF_INET};
	void *data, *end;
	struct iphdr *ip;
	__u32 sum;

	if (bpf_skb_adjust_room(skb, -OVERHEAD, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return TC_ACT_SHOT;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ip = data + ETH_HLEN;
	if ((void *)(ip + 1) > end)
		return TC_ACT_SHOT;
	if (mark) {
		__u8 tos = (ip->tos & ~3) | ecn;

		sum = (__u16)~ip->check + bpf_htons(tos) + (__u16)~bpf_htons(ip->tos);
		ip->check = ~folded(sum);
		ip->tos = tos;
	}
	if (where && where <= LANS) {
		lower_ttl(ip);
		via.ipv4_nh = ip->daddr;
		return bpf_redirect_neigh(set->lan[where - 1].interface, &via, sizeof(via), 0);
	}
	__builtin_memcpy(data, set->ethernet, ETH_HLEN);
	return bpf_redirect(set->kernel_end, BPF_F_INGRESS);
}

static __always_inline int inbound(struct __sk_buff *skb, __u32 interface)
{
	const __u32 wanted = ETH_HLEN + sizeof(struct outer) + sizeof(struct iphdr);
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct entry *source, *destination;
	struct settings *set;
	struct tunnel *tunnel;
	struct outer *outer;
	struct iphdr *ip;
	struct lane *lane;
	__u32 zero = 0, slot, length, number, size;
	void *table;
	__u8 where, ttl;
	bool held, mark;
	int ecn;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return NOT_OURS;
	if (data + wanted > end) {
		if (skb->len < wanted || bpf_skb_pull_data(skb, wanted))
			return NOT_OURS;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		if (data + wanted > end)
			return NOT_OURS;
	}
	outer = data + ETH_HLEN;
	ip = (void *)(outer + 1);
	if (*(__u8 *)&outer->ip != 0x45 || outer->ip.protocol != IPPROTO_UDP ||
	    outer->udp.dest != bpf_htons(PORT) || outer->ip.frag_off & bpf_htons(FRAGMENT) ||
	    outer->tunnel != bpf_htonl(TYPE_AND_NEXT_HEADER) || *(__u8 *)ip != 0x45)
		return NOT_OURS;
	length = bpf_ntohs(ip->tot_len);
	if (length + OVERHEAD != bpf_ntohs(outer->ip.tot_len) || skb->vlan_present ||
	    length + OVERHEAD != skb->len - ETH_HLEN || length < sizeof(*ip) ||
	    length + 12 != bpf_ntohs(outer->udp.len) || !whole(&outer->ip) || !ip->ttl)
		return NOT_OURS;
	slot = tunnel_of(outer, interface, 0);
	held = slot == NONE;
	if (held)
		slot = tunnel_of(outer, interface, 1);
	tunnel = bpf_map_lookup_elem(&tunnels, &slot);
	table = bpf_map_lookup_elem(&table_now, &zero);
	lane = my_lane();
	set = bpf_map_lookup_elem(&settings, &zero);
	if (!tunnel || !table || !lane || !set || slot >= TUNNELS || !tunnel->up || forsaken())
		return NOT_OURS;
	if (!whole(ip))
		return drop(lane, IN_BAD_CHECKSUM, false);
	if (!unicast(ip->saddr) || !unicast(ip->daddr))
		return drop(lane, IN_NOT_UNICAST, false);
	source = find(table, ip->saddr);
	destination = find(table, ip->daddr);
	if (!source || !destination)
		return NOT_OURS;
	if (source->flags & (OWN | HOME))
		return drop(lane, IN_OWN_SOURCE, false);
	/* Keepalives, signalling and what the box itself talks: the other plane looks closer. */
	if (destination->flags & HOME)
		return NOT_OURS;
	if (source->flags & END)
		return drop(lane, IN_TUNNEL_END_SOURCE, false);
	if (tunnel->direct && (held || source->source != slot)) {
		/* A new process knows the peer's end a moment before it knows the peer's prefixes. */
		__u32 before = held ? slot : tunnel_of(outer, interface, 1);

		if (before == NONE || !confirmed(ip->saddr, before, 1))
			return drop(lane, IN_UNCONFIRMED_SOURCE, false);
	}
	if (!(destination->flags & OWN))
		return drop(lane,
			    destination->flags & END ? IN_TUNNEL_END_DESTINATION : IN_FOREIGN_DESTINATION,
			    false);
	ecn = congestion(outer->ip.tos, ip->tos);
	if (ecn < 0)
		return drop(lane, IN_CONGESTION_UNMARKED, false);
	mark = ecn != (ip->tos & 3);
	ttl = ip->ttl;
	if (skb->gso_size && ip->protocol == IPPROTO_UDP) {
		/* Many datagrams that no link has cut yet. Out of the tunnel the kernel would still take
		 * them for tunnelled ones, so they are cut before: the pair does, its offloads are off. */
		if (interface > INTERFACE)
			return NOT_OURS;
		skb->mark = CUT | interface;
		return bpf_redirect(set->kernel_end, 0);
	}
	size = length;
	number = 1;
	if (skb->gso_size) {
		struct tcphdr *tcp = (void *)(ip + 1);

		if (ip->protocol != IPPROTO_TCP || (void *)(tcp + 1) > end)
			return NOT_OURS;
		size = skb->gso_size + sizeof(*ip) + tcp->doff * 4;
		number = packets(skb, ETH_HLEN + OVERHEAD + size - skb->gso_size);
	}
	if (!skb->gso_size && !clamp(skb, tunnel, ETH_HLEN + sizeof(struct outer)))
		return NOT_OURS;
	where = destination->lan;
	if (where && (where > LANS || ttl <= 1 || size > set->lan[where - 1].mtu))
		where = 0;
	lane->value[IN_FORWARDED] += number;
	count(lane, GLOBALS + 2 * slot, number);
	return deliver(skb, set, where, ecn, mark);
}

SEC("tc/from_tunnel")
int from_tunnel(struct __sk_buff *skb)
{
	return skb->pkt_type == PACKET_HOST ? inbound(skb, skb->ifindex) : NOT_OURS;
}

SEC("tc/from_pair")
int from_pair(struct __sk_buff *skb)
{
	__u32 mark = skb->mark;

	if ((mark & ~INTERFACE) != CUT)
		return NOT_OURS;
	skb->mark = 0;
	return inbound(skb, mark & INTERFACE);
}

/* A request is an Ethernet header and, in the next octet, the number of a block of counters; it
 * comes back with the sums of all CPUs behind it. */
struct request {
	struct ethhdr ethernet;
	__u8 block;
	__u8 zero;
} __attribute__((packed));

SEC("tc/report")
int report(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct request *request = data;
	__u64 sums[BLOCK] = {};
	struct lane *lane;
	__u32 first, zero = 0;
	__u64 *asked = bpf_map_lookup_elem(&alive, &zero);

	if ((void *)(request + 1) > end || request->ethernet.h_proto != bpf_htons(ETHERTYPE))
		return NOT_OURS;
	if (asked)
		*asked = bpf_ktime_get_coarse_ns();
	first = request->block * BLOCK;
	if (first > COUNTERS - BLOCK || skb->len < sizeof(*request) + sizeof(sums))
		return TC_ACT_SHOT;
	for (__u32 i = 0; i < LANES; i++) {
		__u32 index = i;

		lane = bpf_map_lookup_elem(&lanes, &index);
		if (!lane)
			return TC_ACT_SHOT;
		for (__u32 k = 0; k < BLOCK; k++)
			sums[k] += lane->value[first + k];
	}
	if (bpf_skb_store_bytes(skb, sizeof(*request), sums, sizeof(sums), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

char _license[] SEC("license") = "Dual MIT/GPL";
