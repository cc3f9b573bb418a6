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
#ifndef TUNNELS
#define TUNNELS 130 /* two banks of 65: the tables of an earlier process are held for a while */
#endif
#include "tunnel.h"

#define PREFIXES 16384
#define LANS 8
#define HINTS 256
#define FLOWS 1024 /* remembered by each CPU, each way; a power of two */
#define HINT_EVERY_NS 200000000ULL
#define DEAD_NS 60000000000ULL /* a control plane that asks for no counters for that long is gone */
#define ETHERTYPE 0x88b5 /* IEEE 802 local experimental: between these programs and their control plane */
#define HINT_MARK 0x02

/* Mark of a packet on its way through the pair to be cut, with the index of its interface. */
#define CUT 0x43400000
#define INTERFACE 0xffff

#define OWN 1
#define HOME 2
#define END 4
#define LOCAL 8 /* the main table routes it: not for lan_to_tunnel */

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

struct lan {
	__u32 interface;
	__u32 mtu;
};

struct settings {
	__u32 kernel_end;
	__u32 our_end;
	__u8 ethernet[14]; /* header of a frame for the kernel's end */
	__u16 zero;
	__u32 epoch; /* another one with each change of tables, ends or LANs, written last; never 0 */
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

/* What the tables said of packets with these addresses, as long as `epoch` is that of the settings:
 * only what may pass, and only by one CPU, so nothing is shared and a flood of addresses costs
 * no more than the tables do. */
struct flow {
	__be32 source;
	__be32 destination;
	__be32 remote; /* of the outer header, on the way in: its source and destination */
	__be32 local;
	__u32 interface; /* where it came from; 0: the kernel routed it */
	__u32 epoch;
	__be16 port;
	__u16 slot;
	__u16 hint;
	__u16 lan;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FLOWS);
	__type(key, __u32);
	__type(value, struct flow);
} flows_out SEC(".maps"), flows_in SEC(".maps");

/* Where a flow has its place; another one may be there. */
static __always_inline __u32 place(struct flow *now)
{
	__u32 mixed = (now->source ^ now->destination * 0x9e3779b1) * 0x85ebca6b;

	return (mixed ^ mixed >> 16) % FLOWS;
}

static __always_inline bool same(struct flow *one, struct flow *other)
{
	return one->source == other->source && one->destination == other->destination &&
	       one->remote == other->remote && one->local == other->local &&
	       one->interface == other->interface && one->epoch == other->epoch &&
	       one->port == other->port;
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

/* Tell the control plane that traffic wants a better path: a copy of the packet, cut by its socket
 * to the Ethernet header, whose source says which hint it is. */
static __always_inline void tell(struct __sk_buff *skb, __u16 hint)
{
	__u32 index = hint, zero = 0;
	__u64 now = bpf_ktime_get_coarse_ns();
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

static __always_inline int drop(struct lane *lane, __u32 reason)
{
	count(lane, reason, 1);
	return TC_ACT_SHOT;
}

/* What judges say of a packet beside a counter of a reason to drop it. */
#define PASSES -1
#define OTHERS -2

/* Say what the tables have for a packet from the kernel's routing or, if flow->interface is one,
 * from a LAN, and where it goes. */
static __noinline int judge_out(struct settings *set, struct flow *flow)
{
	struct entry *source, *destination;
	__u32 zero = 0, place;
	void *table = bpf_map_lookup_elem(&table_now, &zero);

	if (!table)
		return OTHERS;
	source = find(table, flow->source);
	if (!source || !(source->flags & (OWN | HOME)))
		return OUT_FOREIGN_SOURCE;
	if (!unicast(flow->destination))
		return OUT_NOT_UNICAST;
	destination = find(table, flow->destination);
	if (!destination)
		return OUT_NO_ROUTE;
	if (destination->flags & (OWN | HOME))
		return OUT_OWN_DESTINATION;
	if (destination->flags & END)
		return OUT_TUNNEL_END_DESTINATION;
	flow->slot = destination->route;
	flow->hint = destination->hint;
	if (flow->interface) {
		/* Hosts that are on this link, and what the box does not route by itself. */
		place = source->lan - 1;
		if (destination->flags & LOCAL || place >= LANS ||
		    set->lan[place].interface != flow->interface)
			return OTHERS;
	}
	return flow->slot < TUNNELS ? PASSES : OUT_NO_ROUTE;
}

static __always_inline int outbound(struct __sk_buff *skb, bool lan)
{
	__u64 flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	struct bpf_redir_neigh via = {.nh_family = AF_INET};
	__u32 zero = 0, at, slot, length, headers, size;
	struct flow flow = {}, *known;
	struct settings *set;
	struct tunnel *tunnel;
	struct outer *outer;
	struct lane *lane;
	struct iphdr *ip;
	int verdict;
	bool fixed;
	void *end;
	__u8 tos;

	if (!lan && (skb->mark & ~INTERFACE) == CUT)
		return NOT_OURS;
	ip = inner(skb, ETH_HLEN, &end);
	if (!ip)
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
		ip = inner(skb, ETH_HLEN, &end);
		if (!ip)
			return NOT_OURS;
	}
	lane = my_lane();
	set = bpf_map_lookup_elem(&settings, &zero);
	if (!lane || !set || forsaken())
		return NOT_OURS;
	verdict = OUT_BAD_CHECKSUM;
	if (whole(ip)) {
		flow.source = ip->saddr;
		flow.destination = ip->daddr;
		flow.interface = lan ? skb->ifindex : 0;
		flow.epoch = set->epoch;
		at = place(&flow);
		known = bpf_map_lookup_elem(&flows_out, &at);
		if (!known)
			return NOT_OURS;
		verdict = PASSES;
		if (!same(known, &flow)) {
			verdict = judge_out(set, &flow);
			if (verdict == PASSES)
				*known = flow;
		}
		flow.slot = known->slot;
		flow.hint = known->hint;
	}
	slot = flow.slot;
	tunnel = bpf_map_lookup_elem(&tunnels, &slot);
	if (verdict == PASSES && tunnel && !tunnel->up)
		verdict = OUT_TUNNEL_DOWN;
	/* At the LAN nothing is refused: the kernel may know the address. */
	if (verdict >= 0 && !lan)
		return drop(lane, verdict);
	if (verdict != PASSES || !tunnel || slot >= TUNNELS || !tunnel->interface)
		return NOT_OURS;
	size = longest(skb, ip, end, &fixed, tunnel->mtu);
	if (!size || size > tunnel->mtu || !clamp(skb, tunnel, ip, end, ETH_HLEN))
		return NOT_OURS;
	headers = ETH_HLEN + OVERHEAD + size - skb->gso_size + (fixed ? 0 : OVERHEAD);
	if (flow.hint < HINTS)
		tell(skb, flow.hint);
	if (fixed)
		flags |= BPF_F_ADJ_ROOM_FIXED_GSO;
	if (bpf_skb_adjust_room(skb, OVERHEAD, BPF_ADJ_ROOM_MAC, flags))
		return NOT_OURS;
	outer = outer_of(skb);
	if (!outer)
		return TC_ACT_SHOT;
	ip = (void *)(outer + 1);
	if (lan)
		lower_ttl(ip);
	tos = ip->tos; /* RFC 6040 4.1, and RFC 2983 2.1: the uniform model */
	put_outer(outer, tunnel, tos, length);
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

/* The slot of the tunnel that a datagram came by, by the tables of this process (0) or of the one
 * before (1). */
static __always_inline __u32 tunnel_of(struct flow *flow, __u32 process)
{
	struct end key = {flow->remote, flow->local, flow->interface, flow->port, 0};
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

/* Say what the tables have for a packet out of a tunnel, which tunnel it was and where it goes.
 * good: its checksum is right. */
static __noinline int judge_in(struct flow *flow, bool good)
{
	struct entry *source, *destination;
	struct tunnel *tunnel;
	__u32 zero = 0, slot, before;
	void *table;
	bool held;

	slot = tunnel_of(flow, 0);
	held = slot == NONE;
	if (held)
		slot = tunnel_of(flow, 1);
	tunnel = bpf_map_lookup_elem(&tunnels, &slot);
	table = bpf_map_lookup_elem(&table_now, &zero);
	if (!tunnel || !table || !tunnel->up)
		return OTHERS;
	if (!good)
		return IN_BAD_CHECKSUM;
	if (!unicast(flow->source) || !unicast(flow->destination))
		return IN_NOT_UNICAST;
	source = find(table, flow->source);
	destination = find(table, flow->destination);
	if (!source || !destination)
		return OTHERS;
	if (source->flags & (OWN | HOME))
		return IN_OWN_SOURCE;
	/* Keepalives, signalling and what the box itself talks: the other plane looks closer. */
	if (destination->flags & HOME)
		return OTHERS;
	if (source->flags & END)
		return IN_TUNNEL_END_SOURCE;
	if (tunnel->direct && (held || source->source != slot)) {
		/* A new process knows the peer's end a moment before it knows the peer's prefixes. */
		before = held ? slot : tunnel_of(flow, 1);
		if (before == NONE || !confirmed(flow->source, before, 1))
			return IN_UNCONFIRMED_SOURCE;
	}
	if (!(destination->flags & OWN))
		return destination->flags & END ? IN_TUNNEL_END_DESTINATION : IN_FOREIGN_DESTINATION;
	flow->slot = slot;
	flow->lan = destination->lan;
	return PASSES;
}

/* Hand the inner packet to the LAN, or to the kernel as coming from the veth pair. */
static __always_inline int deliver(struct __sk_buff *skb, struct settings *set, __u32 where, int ecn)
{
	struct bpf_redir_neigh via = {.nh_family = AF_INET};
	struct iphdr *ip = unwrap(skb, ecn);

	if (!ip)
		return TC_ACT_SHOT;
	if (where < LANS) {
		lower_ttl(ip);
		via.ipv4_nh = ip->daddr;
		return bpf_redirect_neigh(set->lan[where].interface, &via, sizeof(via), 0);
	}
	__builtin_memcpy((void *)ip - ETH_HLEN, set->ethernet, ETH_HLEN);
	return bpf_redirect(set->kernel_end, BPF_F_INGRESS);
}

static __always_inline int inbound(struct __sk_buff *skb, __u32 interface)
{
	__u32 zero = 0, at, slot, where, length, number, size;
	struct flow flow = {}, *known;
	struct settings *set;
	struct tunnel *tunnel;
	struct outer *outer;
	struct iphdr *ip;
	struct lane *lane;
	int ecn, verdict;
	void *end;
	bool good;

	outer = tunnel_data(skb, &length, &end);
	if (!outer)
		return NOT_OURS;
	ip = (void *)(outer + 1);
	lane = my_lane();
	set = bpf_map_lookup_elem(&settings, &zero);
	if (!lane || !set || forsaken())
		return NOT_OURS;
	good = whole(ip);
	flow.source = ip->saddr;
	flow.destination = ip->daddr;
	flow.remote = outer->ip.saddr;
	flow.local = outer->ip.daddr;
	flow.port = outer->udp.source;
	flow.interface = interface;
	flow.epoch = set->epoch;
	at = place(&flow);
	known = bpf_map_lookup_elem(&flows_in, &at);
	if (!known)
		return NOT_OURS;
	if (!good || !same(known, &flow)) {
		verdict = judge_in(&flow, good);
		if (verdict >= 0)
			return drop(lane, verdict);
		if (verdict != PASSES)
			return NOT_OURS;
		*known = flow;
	}
	slot = known->slot;
	tunnel = bpf_map_lookup_elem(&tunnels, &slot);
	if (!tunnel || slot >= TUNNELS || !tunnel->up)
		return NOT_OURS;
	ecn = congestion(outer->ip.tos, ip->tos);
	if (ecn < 0)
		return drop(lane, IN_CONGESTION_UNMARKED);
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
	where = known->lan - 1; /* LANS or more: the kernel routes it */
	if (where >= LANS || ip->ttl <= 1 || size > set->lan[where].mtu)
		where = LANS;
	if (!skb->gso_size && !clamp(skb, tunnel, ip, end, ETH_HLEN + sizeof(struct outer)))
		return NOT_OURS;
	lane->value[IN_FORWARDED] += number;
	count(lane, GLOBALS + 2 * slot, number);
	return deliver(skb, set, where, ecn);
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
