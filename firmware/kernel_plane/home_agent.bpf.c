// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The home agent's kernel data plane: packets from tunnel to tunnel, and between the tunnels and the
 * home networks, at tc.
 *
 * Takes what the addresses alone decide, for bindings in UDP tunnels. All else goes on as if this was
 * not there, to the home agent's sockets, which judge by the same tables: signalling, keepalives, what
 * is for a home address or has no binding, a gateway's traffic, what is to leave to the outside, outer
 * fragments, IP options, TTLs that end, what does not fit. A binding ends here by itself, by the clock,
 * so a home agent that does not run leaves nothing in force for longer than it promised.
 *
 *   from_tunnel  ingress of an interface that routers are reached by: to another tunnel, or to the
 *                kernel as coming from the TUN device
 *   to_tunnel    egress of the TUN device: what the kernel routed to the routers
 *
 * haaro_host/home_agent/kernel_plane.py fills the maps; what it writes is laid out here. Addresses and
 * ports are in network order, all else in the order of the host.
 */
#define TUNNELS 1024
#define DONT_FRAGMENT 0 /* as its sockets: the path MTU of a router is not known here */
#include "tunnel.h"

#define PREFIXES 65536

/* What a prefix is; where there is none, or another number, the home agent decides. */
#define NETWORK 1 /* a mobile network, of the router in `slot` */
#define HOME_ADDRESS 2 /* as a source only: what is for it may be signalling */
#define HOME_NETWORK 3

struct prefix {
	__u32 length; /* 32 more than that of the address */
	__u32 domain; /* routing domain: realms may use the same prefixes */
	__be32 address;
};

struct entry {
	__u16 slot; /* or NONE */
	__u16 kind;
};

struct end {
	__be32 remote;
	__be16 port;
	__u16 zero;
};

struct origin {
	__u32 slot;
	__u32 zero;
	__u64 until; /* boot time in ns: of the binding, or of the grace after its move */
};

struct binding {
	struct tunnel tunnel; /* without via and interface: the kernel's routing says */
	__u32 domain;
	__u32 gateway; /* its sources are nobody's, which is not for here to know */
	__u64 until;
};

struct settings {
	__u32 tun;
	__u32 domain; /* of the home networks */
	__be32 address;
	__u32 zero;
};

/* Index of a counter of lane.value. */
enum counter {
	RELAYED,
	TO_HOME,
	FROM_HOME,
	INNER_SOURCE,
	HAIRPIN,
	CONGESTION_UNMARKED,
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
	__type(value, struct binding);
} bindings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * TUNNELS);
	__type(key, struct end);
	__type(value, struct origin);
} ends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PREFIXES);
	__type(key, struct prefix);
	__type(value, struct entry);
} prefixes SEC(".maps");

static __always_inline struct entry *find(__u32 domain, __be32 address)
{
	struct prefix key = {64, domain, address};

	return bpf_map_lookup_elem(&prefixes, &key);
}

static __always_inline struct binding *in_force(__u32 slot, __u64 now)
{
	struct binding *found = bpf_map_lookup_elem(&bindings, &slot);

	return found && slot < TUNNELS && found->tunnel.up && found->until > now ? found : NULL;
}

/* Ask the kernel's routing where the tunnel leads; false: not for here. */
static __always_inline bool path(struct __sk_buff *skb, struct bpf_fib_lookup *fib, struct tunnel *tunnel,
				 __u32 size, __u32 tun)
{
	long found;

	fib->family = AF_INET;
	fib->l4_protocol = IPPROTO_UDP;
	fib->sport = bpf_htons(PORT);
	fib->dport = tunnel->port;
	fib->tot_len = size + OVERHEAD;
	fib->ifindex = skb->ifindex;
	fib->ipv4_src = tunnel->local;
	fib->ipv4_dst = tunnel->remote;
	found = bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
	return (found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH) &&
	       fib->family == AF_INET && fib->ifindex != tun;
}

/* Have the UDP checksum be that of other addresses and ports. It may be one that the stack left to
 * the link, so it is not taken away; none stays none. Pointers into the packet are void afterwards. */
static __always_inline int readdress(struct __sk_buff *skb, struct outer *outer, struct tunnel *tunnel)
{
	const __u32 at = ETH_HLEN + offsetof(struct outer, udp.check);
	const __u64 addresses = BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | sizeof(__be32);
	__be32 source = outer->ip.saddr, destination = outer->ip.daddr;
	__be16 port = outer->udp.source;

	/* The port it comes from is 434 from here on, the one it goes to was. */
	return bpf_l4_csum_replace(skb, at, source, tunnel->local, addresses) ||
	       bpf_l4_csum_replace(skb, at, destination, tunnel->remote, addresses) ||
	       bpf_l4_csum_replace(skb, at, port, tunnel->port, BPF_F_MARK_MANGLED_0 | sizeof(port));
}

static __always_inline int relay(struct __sk_buff *skb, struct tunnel *tunnel,
				 struct bpf_fib_lookup *fib, __u32 length, int ecn)
{
	struct bpf_redir_neigh via = {.nh_family = AF_INET, .ipv4_nh = fib->ipv4_dst};
	struct outer *outer = outer_of(skb);
	struct iphdr *ip;
	__sum16 check;

	if (!outer || (outer->udp.check && readdress(skb, outer, tunnel)))
		return TC_ACT_SHOT;
	outer = outer_of(skb);
	if (!outer)
		return TC_ACT_SHOT;
	ip = (void *)(outer + 1);
	/* A header and its own checksum sum up to the same whatever changes: so does the UDP checksum. */
	lower_ttl(ip);
	remark(ip, ecn);
	check = outer->udp.check;
	put_outer(outer, tunnel, ip->tos, length);
	outer->udp.check = check;
	return bpf_redirect_neigh(fib->ifindex, &via, sizeof(via), 0);
}

SEC("tc/from_tunnel")
int from_tunnel(struct __sk_buff *skb)
{
	__u32 zero = 0, slot, to, length, size, number, headers;
	struct entry *source, *destination;
	struct binding *from, *target;
	struct bpf_fib_lookup fib = {};
	struct settings *set;
	struct origin *origin;
	struct outer *outer;
	struct end key = {};
	struct iphdr *ip;
	struct lane *lane;
	__u64 now;
	void *end;
	bool fixed;
	int ecn;

	if (skb->pkt_type != PACKET_HOST)
		return NOT_OURS;
	outer = tunnel_data(skb, &length, &end);
	if (!outer)
		return NOT_OURS;
	ip = (void *)(outer + 1);
	set = bpf_map_lookup_elem(&settings, &zero);
	lane = my_lane();
	if (!set || !lane || outer->ip.daddr != set->address)
		return NOT_OURS;
	key.remote = outer->ip.saddr;
	key.port = outer->udp.source;
	origin = bpf_map_lookup_elem(&ends, &key);
	now = bpf_ktime_get_boot_ns();
	if (!origin || origin->until <= now)
		return NOT_OURS;
	slot = origin->slot;
	from = in_force(slot, now);
	if (!from || !whole(ip))
		return NOT_OURS;
	source = find(from->domain, ip->saddr);
	if (!source || source->slot != slot) {
		if (from->gateway)
			return NOT_OURS;
		lane->value[INNER_SOURCE]++;
		return TC_ACT_SHOT;
	}
	destination = find(from->domain, ip->daddr);
	size = longest(skb, ip, end, &fixed, from->tunnel.mtu);
	if (!destination || ip->ttl <= 1 || !unicast(ip->daddr) || !size || !fixed)
		return NOT_OURS;
	if (destination->kind == NETWORK && destination->slot == slot) {
		lane->value[HAIRPIN]++;
		return TC_ACT_SHOT;
	}
	if (destination->kind != NETWORK && destination->kind != HOME_NETWORK)
		return NOT_OURS;
	headers = ETH_HLEN + OVERHEAD + size - skb->gso_size;
	number = packets(skb, headers);
	ecn = congestion(outer->ip.tos, ip->tos);
	if (ecn < 0) {
		lane->value[CONGESTION_UNMARKED]++;
		return TC_ACT_SHOT;
	}
	if (destination->kind == HOME_NETWORK) {
		/* Out of the tunnel the kernel would still take datagrams not cut yet for tunnelled ones. */
		if (size > from->tunnel.mtu || (skb->gso_size && ip->protocol == IPPROTO_UDP))
			return NOT_OURS;
		lane->value[TO_HOME] += number;
		count(lane, GLOBALS + 2 * slot, number);
		return unwrap(skb, ecn) ? bpf_redirect(set->tun, BPF_F_INGRESS) : TC_ACT_SHOT;
	}
	to = destination->slot;
	target = in_force(to, now);
	if (!target || size > target->tunnel.mtu || !path(skb, &fib, &target->tunnel, size, set->tun))
		return NOT_OURS;
	lane->value[RELAYED] += number;
	count(lane, GLOBALS + 2 * slot, number);
	count(lane, GLOBALS + 2 * to + 1, number);
	return relay(skb, &target->tunnel, &fib, length, ecn);
}

SEC("tc/to_tunnel")
int to_tunnel(struct __sk_buff *skb)
{
	const __u64 flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
			    BPF_F_ADJ_ROOM_FIXED_GSO;
	__u32 zero = 0, slot, length, size, number;
	struct entry *source, *destination;
	struct bpf_fib_lookup fib = {};
	struct binding *target;
	struct settings *set;
	struct outer *outer;
	struct iphdr *ip;
	struct lane *lane;
	bool fixed;
	void *end;

	ip = inner(skb, 0, &end); /* a TUN device's packets have no link header */
	if (!ip)
		return NOT_OURS;
	length = bpf_ntohs(ip->tot_len);
	if (length != skb->len || !ip->ttl || !whole(ip))
		return NOT_OURS;
	set = bpf_map_lookup_elem(&settings, &zero);
	lane = my_lane();
	if (!set || !lane)
		return NOT_OURS;
	source = find(set->domain, ip->saddr);
	destination = find(set->domain, ip->daddr);
	if (!source || source->kind != HOME_NETWORK || !destination ||
	    destination->kind != NETWORK || !unicast(ip->daddr))
		return NOT_OURS;
	slot = destination->slot;
	target = in_force(slot, bpf_ktime_get_boot_ns());
	if (!target)
		return NOT_OURS;
	size = longest(skb, ip, end, &fixed, target->tunnel.mtu);
	if (!size || !fixed || size > target->tunnel.mtu)
		return NOT_OURS;
	number = packets(skb, size - skb->gso_size);
	if (!path(skb, &fib, &target->tunnel, size, set->tun) || bpf_skb_change_head(skb, ETH_HLEN, 0))
		return NOT_OURS;
	if (bpf_skb_adjust_room(skb, OVERHEAD, BPF_ADJ_ROOM_MAC, flags))
		return TC_ACT_SHOT;
	outer = outer_of(skb);
	if (!outer)
		return TC_ACT_SHOT;
	ip = (void *)(outer + 1);
	put_outer(outer, &target->tunnel, ip->tos, length);
	/* The kernel made it of the TOS: no host chooses the band that control leaves by. */
	skb->priority = 0;
	lane->value[FROM_HOME] += number;
	count(lane, GLOBALS + 2 * slot + 1, number);
	/* Without a next hop: its own route replaces the one to the TUN device, for a packet that waits
	 * for ARP. */
	return bpf_redirect_neigh(fib.ifindex, NULL, 0, 0);
}

char _license[] SEC("license") = "Dual MIT/GPL";
