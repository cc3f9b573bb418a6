-- Wireshark dissector for Mobile IPv4 (UDP port 434) with RFC 6521.
--
-- Wireshark's own `mip` does not know the messages 24 to 27 and the extensions 153, 49 and 50, and
-- loses its place at the first extension 50. This one reads all of a message, prefixes and realms
-- decompressed. It checks what a receiver checks without keys, in the same order and with the same
-- words as `haaro decode` (haaro.discard, haaro.bad); it has no keys and verifies no authenticator.
--
-- Install it with `haaro wireshark install`, or try it: tshark -X lua_script:haaro.lua -r FILE.
-- Written for Lua 5.1 to 5.4: no integer division, no bit operators.

local haaro = Proto("haaro", "Mobile IPv4 with RFC 6521")

haaro.prefs.also_mip = Pref.bool("Show Wireshark's own decoding too", false,
    "Call the mip dissector first, so that its fields can be filtered for")

local PORT = 434
local MAX_EXTENSIONS = 128
local MAX_REALM = 253
local DICTIONARY = 128
local NTP_TO_UNIX = 2208988800
local FIXED = { [1] = 24, [3] = 20, [4] = 4, [7] = 20, [15] = 12, [24] = 10, [25] = 10, [26] = 20,
    [27] = 20 }

-- --- words ---------------------------------------------------------------------------------------

local MESSAGES = {
    [1] = "Registration Request",
    [3] = "Registration Reply",
    [4] = "MIP Tunnel Data",
    [7] = "Registration Revocation",
    [15] = "Registration Revocation Acknowledgment",
    [24] = "Home Test Init",
    [25] = "Care-of Test Init",
    [26] = "Home Test",
    [27] = "Care-of Test",
}

local EXTENSIONS = {
    ["32"] = "Mobile-Home Authentication",
    ["44/0"] = "UDP Tunnel Reply",
    ["49/1"] = "Route Optimization Reply",
    ["49/2"] = "Mobile-Correspondent Authentication",
    ["49/3"] = "Care-of Address",
    ["50/1"] = "Route Optimization Prefix Advertisement",
    ["131"] = "Mobile Node NAI",
    ["137"] = "Revocation Support",
    ["144/0"] = "UDP Tunnel Request",
    ["148/0"] = "Mobile Network Request",
    ["148/1"] = "Explicit Mode Mobile Network Acknowledgement",
    ["148/2"] = "Implicit Mode Mobile Network Acknowledgement",
    ["153/1"] = "Mobile Router Route Optimization Capability",
}
local WITH_SUBTYPE = { [44] = true, [49] = true, [50] = true, [144] = true, [148] = true,
    [153] = true }

local REPLY_CODES = {
    [0] = "registration accepted",
    [1] = "accepted, but no simultaneous bindings",
    [2] = "concurrent registration (pre-accept)",
    [64] = "foreign agent: reason unspecified",
    [65] = "foreign agent: administratively prohibited",
    [66] = "foreign agent: insufficient resources",
    [67] = "foreign agent: mobile node not authentic",
    [68] = "foreign agent: home agent not authentic",
    [69] = "foreign agent: requested Lifetime too long",
    [70] = "foreign agent: poorly formed Request",
    [71] = "foreign agent: poorly formed Reply",
    [72] = "foreign agent: requested encapsulation unavailable",
    [73] = "foreign agent: reserved and unavailable",
    [74] = "foreign agent: requested reverse tunnel unavailable",
    [75] = "foreign agent: reverse tunnel is mandatory, T not set",
    [76] = "foreign agent: mobile node too distant",
    [77] = "foreign agent: invalid care-of address",
    [78] = "foreign agent: registration timeout",
    [79] = "foreign agent: delivery style not supported",
    [80] = "foreign agent: home network unreachable",
    [81] = "foreign agent: home agent host unreachable",
    [82] = "foreign agent: home agent port unreachable",
    [88] = "foreign agent: home agent unreachable (other ICMP error)",
    [89] = "foreign agent: vendor-specific reason",
    [90] = "foreign agent: non-zero home agent address required",
    [96] = "foreign agent: non-zero home address required",
    [97] = "foreign agent: the NAI is missing",
    [98] = "foreign agent: the home agent is missing",
    [99] = "foreign agent: the home address is missing",
    [100] = "foreign agent: vendor extension of the mobile node unknown",
    [101] = "foreign agent: vendor extension of the home agent unknown",
    [104] = "foreign agent: unknown challenge",
    [105] = "foreign agent: missing challenge",
    [106] = "foreign agent: stale challenge",
    [107] = "foreign agent: no MN-FA key generation nonce reply",
    [108] = "foreign agent: mobile node failed AAA authentication",
    [109] = "foreign agent: the home agent sent a wrong challenge",
    [127] = "foreign agent: experimental use",
    [128] = "reason unspecified",
    [129] = "administratively prohibited",
    [130] = "insufficient resources",
    [131] = "mobile node not authentic",
    [132] = "foreign agent not authentic",
    [133] = "registration Identification mismatch",
    [134] = "poorly formed Request",
    [135] = "too many simultaneous mobility bindings",
    [136] = "unknown home agent address",
    [137] = "requested reverse tunnel unavailable",
    [138] = "reverse tunnel is mandatory, T not set",
    [139] = "requested encapsulation unavailable",
    [140] = "vendor extension of the mobile node unknown",
    [141] = "vendor extension of the foreign agent unknown",
    [142] = "requested UDP tunnel unavailable",
    [143] = "register with the redirected home agent",
    [144] = "mobile node failed AAA authentication",
    [147] = "mobile network prefix operation error",
    [148] = "mobile router operation is not permitted",
    [149] = "proxy registration not supported",
    [150] = "proxy registration not permitted",
    [192] = "experimental use",
    [201] = "expired home nonce index",
    [202] = "expired care-of nonce index",
    [203] = "expired nonces",
}
local MOBNET_CODES = {
    [0] = "Success",
    [1] = "Invalid prefix (MOBNET_INVALID_PREFIX_LEN)",
    [2] = "Mobile Router is not authorized for prefix (MOBNET_UNAUTHORIZED)",
    [3] = "Forwarding setup failed (MOBNET_FWDING_SETUP_FAILED)",
}
local RO_CODES = {
    [0] = "Will do route optimization",
    [16] = "Route optimization declined; reason unspecified",
}
local ENCAPSULATIONS = { [0] = "as the M and G flags say", [4] = "IP in IP", [47] = "GRE",
    [55] = "Minimal IP" }

-- --- fields --------------------------------------------------------------------------------------

local f = {
    type = ProtoField.uint8("haaro.type", "Type", base.DEC, MESSAGES),
    flags = ProtoField.uint8("haaro.flags", "Flags", base.HEX),
    flag_s = ProtoField.bool("haaro.flags.s", "S: Simultaneous bindings", 8, nil, 0x80),
    flag_b = ProtoField.bool("haaro.flags.b", "B: Broadcast datagrams", 8, nil, 0x40),
    flag_d = ProtoField.bool("haaro.flags.d", "D: Decapsulation by mobile node", 8, nil, 0x20),
    flag_m = ProtoField.bool("haaro.flags.m", "M: Minimal encapsulation", 8, nil, 0x10),
    flag_g = ProtoField.bool("haaro.flags.g", "G: GRE encapsulation", 8, nil, 0x08),
    flag_r = ProtoField.bool("haaro.flags.r", "r: reserved, ignored", 8, nil, 0x04),
    flag_t = ProtoField.bool("haaro.flags.t", "T: Reverse Tunneling", 8, nil, 0x02),
    flag_x = ProtoField.bool("haaro.flags.x", "x: reserved, ignored", 8, nil, 0x01),
    code = ProtoField.uint8("haaro.code", "Code", base.DEC, REPLY_CODES),
    lifetime = ProtoField.uint16("haaro.lifetime", "Lifetime"),
    hoa = ProtoField.ipv4("haaro.hoa", "Home Address"),
    ha = ProtoField.ipv4("haaro.ha", "Home Agent"),
    coa = ProtoField.ipv4("haaro.coa", "Care-of Address"),
    ident = ProtoField.uint64("haaro.ident", "Identification", base.HEX),
    ident_time = ProtoField.absolute_time("haaro.ident.time", "As a timestamp", base.UTC),
    reserved = ProtoField.uint16("haaro.reserved", "Reserved", base.HEX),
    nonce_index = ProtoField.uint16("haaro.nonce_index", "Nonce Index"),
    cookie = ProtoField.bytes("haaro.cookie", "Init Cookie"),
    token = ProtoField.bytes("haaro.token", "Keygen Token"),
    rev_a = ProtoField.bool("haaro.rev.a", "A: home agent sends", 16, nil, 0x8000),
    rev_i = ProtoField.bool("haaro.rev.i", "I: Inform", 16, nil, 0x4000),
    rev_ack_i = ProtoField.bool("haaro.rev.ack_i", "I: Inform", 16, nil, 0x8000),
    home_domain = ProtoField.ipv4("haaro.rev.home_domain", "Home Domain Address"),
    foreign_domain = ProtoField.ipv4("haaro.rev.foreign_domain", "Foreign Domain Address"),
    rev_id = ProtoField.uint32("haaro.rev.id", "Revocation Identifier"),
    next_header = ProtoField.uint8("haaro.next_header", "Next Header"),

    ext_type = ProtoField.uint8("haaro.ext.type", "Type"),
    ext_subtype = ProtoField.uint8("haaro.ext.subtype", "Subtype"),
    ext_length = ProtoField.uint16("haaro.ext.length", "Length"),
    ext_data = ProtoField.bytes("haaro.ext.data", "Data"),
    padding = ProtoField.bytes("haaro.padding", "Padding"),
    unprotected = ProtoField.bool("haaro.ext.unprotected", "Not protected, never acted upon"),
    skipped = ProtoField.bool("haaro.ext.skipped", "Unknown, skipped"),

    auth_spi = ProtoField.uint32("haaro.auth.spi", "SPI"),
    auth_home_nonce = ProtoField.uint16("haaro.auth.home_nonce_index", "Home Nonce Index"),
    auth_care_of_nonce = ProtoField.uint16("haaro.auth.care_of_nonce_index", "Care-of Nonce Index"),
    auth_value = ProtoField.bytes("haaro.auth.authenticator", "Authenticator"),

    mobnet_code = ProtoField.uint8("haaro.mobnet.code", "Code", base.DEC, MOBNET_CODES),
    mobnet_plen = ProtoField.uint8("haaro.mobnet.plen", "Prefix Length"),
    mobnet_prefix = ProtoField.ipv4("haaro.mobnet.prefix", "Prefix"),

    utrq_f = ProtoField.bool("haaro.utrq.f", "F: Force", 8, nil, 0x80),
    utrq_r = ProtoField.bool("haaro.utrq.r", "R: Register with FA", 8, nil, 0x40),
    utrq_encap = ProtoField.uint8("haaro.utrq.encap", "Encapsulation", base.DEC, ENCAPSULATIONS),
    utrp_code = ProtoField.uint8("haaro.utrp.code", "Code"),
    utrp_f = ProtoField.bool("haaro.utrp.f", "F: Forced", 8, nil, 0x80),
    utrp_keepalive = ProtoField.uint16("haaro.utrp.keepalive", "Keepalive Interval"),

    cap_a = ProtoField.bool("haaro.cap.a", "A: Advertise", 8, nil, 0x80),
    cap_r = ProtoField.bool("haaro.cap.r", "R: Request", 8, nil, 0x40),
    cap_s = ProtoField.bool("haaro.cap.s", "S: Solicit", 8, nil, 0x20),
    cap_o = ProtoField.bool("haaro.cap.o", "O: Outbound only", 8, nil, 0x10),
    cap_hoa = ProtoField.ipv4("haaro.cap.hoa", "Solicited router's HoA"),

    ro_o = ProtoField.bool("haaro.ro.o", "O: Outbound only", 8, nil, 0x80),
    ro_n = ProtoField.bool("haaro.ro.n", "N: NAT was detected", 8, nil, 0x40),
    ro_s = ProtoField.bool("haaro.ro.s", "S: Solicited", 8, nil, 0x20),
    ro_code = ProtoField.uint8("haaro.ro.code", "Code", base.DEC, RO_CODES, 0x1f),
    coas = ProtoField.ipv4("haaro.coas", "Care-of Address"),

    adv_router = ProtoField.ipv4("haaro.adv.hoa", "Mobile Router HoA"),
    adv_outbound = ProtoField.bool("haaro.adv.outbound_only", "Outbound connections only", 8, nil,
        0x01),
    adv_network = ProtoField.string("haaro.adv.network", "Network"),
    adv_delta = ProtoField.bool("haaro.adv.d", "D: Delta to the prefix before", 8, nil, 0x80),
    adv_plen = ProtoField.uint8("haaro.adv.plen", "Prefix Length", base.DEC, nil, 0x3f),
    adv_prefix = ProtoField.ipv4("haaro.adv.prefix", "Prefix"),
    adv_realm = ProtoField.string("haaro.adv.realm", "Realm"),

    support_i = ProtoField.bool("haaro.revocation_support.i", "I: Inform", 16, nil, 0x8000),
    support_time = ProtoField.uint32("haaro.revocation_support.timestamp", "Timestamp"),
    nai = ProtoField.string("haaro.nai", "NAI"),

    discard = ProtoField.string("haaro.discard", "A receiver drops this datagram"),
    stopped_at = ProtoField.uint32("haaro.stopped_at", "Parsing stopped at octet"),
    bad = ProtoField.string("haaro.bad", "A receiver cannot use this extension"),
}

local field_list = {}
for _, field in pairs(f) do
    field_list[#field_list + 1] = field
end
haaro.fields = field_list

local e = {
    discard = ProtoExpert.new("haaro.expert.discard", "A receiver drops this datagram",
        expert.group.MALFORMED, expert.severity.ERROR),
    bad = ProtoExpert.new("haaro.expert.bad", "A receiver cannot use this extension",
        expert.group.PROTOCOL, expert.severity.WARN),
    unprotected = ProtoExpert.new("haaro.expert.unprotected",
        "Not protected by an authenticator: never acted upon", expert.group.SECURITY,
        expert.severity.WARN),
}
haaro.experts = { e.discard, e.bad, e.unprotected }

-- --- octets --------------------------------------------------------------------------------------
-- `s` is the datagram as a Lua string, `off` counts from 0 as in the RFCs and in Wireshark.

local function octet(s, off)
    return string.byte(s, off + 1)
end

local function number16(s, off)
    return octet(s, off) * 256 + octet(s, off + 1)
end

local function bit(value, weight)
    return math.floor(value / weight) % 2 == 1
end

local function clear_low(value, bits)
    local unit = 2 ^ bits
    return math.floor(value / unit) * unit
end

local function dotted(value)
    return string.format("%d.%d.%d.%d", math.floor(value / 16777216), math.floor(value / 65536) % 256,
        math.floor(value / 256) % 256, value % 256)
end

-- What a peer chose may hold octets that a terminal acts upon.
local function escaped(text)
    return (string.gsub(text, "[%z\1-\31\\\127-\255]", function(c)
        return string.format("\\x%02x", string.byte(c))
    end))
end

-- --- realms (RFC 6521 4.2) and prefixes (4.1) ------------------------------------------------------

local function new_dictionary()
    return { slots = {}, next = 0 }
end

local function insert(dictionary, text)
    dictionary.slots[dictionary.next] = text
    dictionary.next = (dictionary.next + 1) % DICTIONARY
end

-- Returns realm, offset after its end mark; or nil, reason.
local function read_realm(s, off, stop, dictionary)
    local realm, run = nil, {}
    while true do
        if off >= stop then
            return nil, "realm_truncated"
        end
        local tag = octet(s, off)
        off = off + 1
        if tag == 0 then
            break
        end
        local piece
        if tag >= 128 then
            piece = dictionary.slots[tag - 128]
            if piece == nil then
                return nil, "realm_index_unset"
            end
            run = {}
        else
            if off + tag > stop then
                return nil, "realm_truncated"
            end
            piece = string.sub(s, off + 1, off + tag)
            if string.find(piece, "[%z.]") then
                return nil, "realm_label"
            end
            off = off + tag
            insert(dictionary, piece)
            run[#run + 1] = piece
        end
        realm = realm and realm .. "." .. piece or piece
        if #realm > MAX_REALM then
            return nil, "realm_too_long"
        end
    end
    -- All suffixes of the last run that are longer than one label, longest first.
    for first = 1, #run - 1 do
        insert(dictionary, table.concat(run, ".", first))
    end
    return realm or "", off
end

-- Returns prefix as a number, offset after it; or nil, reason.
local function read_prefix(s, off, stop, delta, plen, master)
    if plen > 32 then
        return nil, "plen_33_63"
    end
    local size = delta and 1 or math.ceil(plen / 8)
    if off + size > stop then
        return nil, "advertisement_truncated"
    end
    if not delta then
        local value = 0
        for i = 0, 3 do
            value = value * 256 + (i < size and octet(s, off + i) or 0)
        end
        master.value = clear_low(value, 32 - plen)
        return master.value, off + size
    end
    if master.value == nil then
        return nil, "delta_without_master"
    end
    if plen < 8 then
        return nil, "delta_plen_below_8"
    end
    return clear_low(master.value, 40 - plen) + octet(s, off) * 2 ^ (32 - plen), off + 1
end

-- Returns a list of structures {at, stop, hoa =, outbound =} or {at, stop, plen =, prefix =, ...};
-- or nil, reason: a bad advertisement is not used at all.
local function read_advertisement(s, off, stop)
    if off >= stop then
        return nil, "advertisement_empty"
    end
    if not bit(octet(s, off), 64) then
        return nil, "first_not_hoa"
    end
    local found, dictionary, master = {}, new_dictionary(), {}
    while off < stop do
        local at = off
        local head = octet(s, off)
        local info = head % 64
        off = off + 1
        if bit(head, 64) then
            if info > 1 then
                return nil, "info_2_63"
            end
            if off + 4 > stop then
                return nil, "advertisement_truncated"
            end
            off = off + 4
            found[#found + 1] = { at = at, stop = off, hoa = true }
        else
            local prefix, after = read_prefix(s, off, stop, bit(head, 128), info, master)
            if prefix == nil then
                return nil, after
            end
            local realm, past = read_realm(s, after, stop, dictionary)
            if realm == nil then
                return nil, past
            end
            found[#found + 1] = { at = at, stop = past, plen = info, prefix = prefix,
                prefix_at = off, realm_at = after, realm = realm }
            off = past
        end
    end
    return found
end

-- --- extensions ------------------------------------------------------------------------------------
-- A reader gets (message, tree, off, stop) of the extension's data. It adds fields and returns nil,
-- or returns a reason, as `haaro decode` says it, and adds nothing.

local function add_address(tree, field, m, off, value)
    tree:add(field, m.tvb(off, 4), Address.ip(dotted(value)))
end

local function number32(s, off)
    return number16(s, off) * 65536 + number16(s, off + 2)
end

local function mobile_network_request(m, tree, off, stop)
    if stop - off ~= 5 then
        return "mobnet_length"
    end
    local plen = octet(m.s, off)
    if plen > 32 then
        return "mobnet_plen"
    end
    tree:add(f.mobnet_plen, m.tvb(off, 1))
    add_address(tree, f.mobnet_prefix, m, off + 1, clear_low(number32(m.s, off + 1), 32 - plen))
end

local function mobile_network_ack(m, tree, off, stop)
    if stop - off ~= 7 then
        return "mobnet_length"
    end
    local plen = octet(m.s, off + 1)
    if plen > 32 and octet(m.s, off) == 0 then
        return "mobnet_plen"
    end
    tree:add(f.mobnet_code, m.tvb(off, 1))
    tree:add(f.mobnet_plen, m.tvb(off + 1, 1))
    local kept = math.min(plen, 32)
    add_address(tree, f.mobnet_prefix, m, off + 3, clear_low(number32(m.s, off + 3), 32 - kept))
end

local function udp_tunnel_request(m, tree, off, stop)
    if stop - off ~= 5 then
        return "udp_tunnel_length"
    end
    if number16(m.s, off + 3) ~= 0 then
        return "reserved_3"
    end
    tree:add(f.utrq_f, m.tvb(off + 1, 1))
    tree:add(f.utrq_r, m.tvb(off + 1, 1))
    tree:add(f.utrq_encap, m.tvb(off + 2, 1))
end

local function udp_tunnel_reply(m, tree, off, stop)
    if stop - off ~= 5 then
        return "udp_tunnel_length"
    end
    tree:add(f.utrp_code, m.tvb(off, 1)):append_text(octet(m.s, off) < 64
        and " (will do UDP tunnelling)" or " (UDP tunnelling declined)")
    tree:add(f.utrp_f, m.tvb(off + 1, 1))
    tree:add(f.utrp_keepalive, m.tvb(off + 3, 2)):append_text(" s")
end

local function capability(m, tree, off, stop)
    local flags = off < stop and octet(m.s, off) or 0
    local solicit = bit(flags, 32)
    if stop - off ~= (solicit and 5 or 1) then
        return "ro_cap_hoa_iff_s"
    end
    for _, field in ipairs({ f.cap_a, f.cap_r, f.cap_s, f.cap_o }) do
        tree:add(field, m.tvb(off, 1))
    end
    if solicit then
        tree:add(f.cap_hoa, m.tvb(off + 1, 4))
    end
end

local function route_optimization_reply(m, tree, off, stop)
    if stop - off ~= 1 then
        return "ro_reply_length"
    end
    for _, field in ipairs({ f.ro_o, f.ro_n, f.ro_s, f.ro_code }) do
        tree:add(field, m.tvb(off, 1))
    end
end

local function care_of_addresses(m, tree, off, stop)
    if stop - off < 5 or (stop - off) % 4 ~= 1 then
        return "coa_ext_length"
    end
    for at = off + 1, stop - 1, 4 do
        tree:add(f.coas, m.tvb(at, 4))
    end
end

local function prefix_advertisement(m, tree, off, stop)
    local found, reason = read_advertisement(m.s, off, stop)
    if found == nil then
        return reason
    end
    local router = tree
    for _, one in ipairs(found) do
        if one.hoa then
            router = tree:add(f.adv_router, m.tvb(one.at + 1, 4))
            router:add(f.adv_outbound, m.tvb(one.at, 1))
        else
            local realm = escaped(one.realm)
            local text = dotted(one.prefix) .. "/" .. one.plen
            local network = router:add(f.adv_network, m.tvb(one.at, one.stop - one.at), text)
            if realm ~= "" then
                network:append_text(" realm " .. realm)
            end
            network:add(f.adv_delta, m.tvb(one.at, 1))
            network:add(f.adv_plen, m.tvb(one.at, 1))
            -- Its octets are at most 4, and none for 0.0.0.0/0.
            local size = math.max(one.realm_at - one.prefix_at, 1)
            network:add(f.adv_prefix, m.tvb(one.prefix_at, size), Address.ip(dotted(one.prefix)))
            network:add(f.adv_realm, m.tvb(one.realm_at, one.stop - one.realm_at), realm)
        end
    end
end

local function revocation_support(m, tree, off, stop)
    if stop - off < 6 then
        return "revocation_length"
    end
    tree:add(f.support_i, m.tvb(off, 2))
    tree:add(f.support_time, m.tvb(off + 2, 4))
end

local function nai(m, tree, off, stop)
    if stop <= off then
        return "nai_length"
    end
    tree:add(f.nai, m.tvb(off, stop - off), escaped(string.sub(m.s, off + 1, stop)))
end

-- Authenticators count from the start of the extension: their header is protected too.
local function mobile_home(m, tree, start, stop)
    tree:add(f.auth_spi, m.tvb(start + 2, 4))
    if stop > start + 6 then
        tree:add(f.auth_value, m.tvb(start + 6, stop - start - 6))
    end
end

local function mobile_correspondent(m, tree, start, stop)
    tree:add(f.auth_home_nonce, m.tvb(start + 4, 2))
    tree:add(f.auth_care_of_nonce, m.tvb(start + 6, 2))
    if stop > start + 8 then
        tree:add(f.auth_value, m.tvb(start + 8, stop - start - 8))
    end
end

local READERS = {
    ["44/0"] = udp_tunnel_reply,
    ["49/1"] = route_optimization_reply,
    ["49/3"] = care_of_addresses,
    ["50/1"] = prefix_advertisement,
    ["131"] = nai,
    ["137"] = revocation_support,
    ["144/0"] = udp_tunnel_request,
    ["148/0"] = mobile_network_request,
    ["148/1"] = mobile_network_ack,
    ["148/2"] = mobile_network_ack,
    ["153/1"] = capability,
}
local AUTHENTICATORS = { ["32"] = mobile_home, ["49/2"] = mobile_correspondent }
local AUTHENTICATOR_MINIMUM = { ["32"] = 6, ["49/2"] = 8 }
local SEVERAL_ALLOWED = { ["148/0"] = true, ["148/1"] = true, ["148/2"] = true }

-- Returns the extensions that can be framed, and, when that ends early, a reason and an offset.
-- `judged` is false for messages whose authenticators have no meaning.
local function walk(s, off, judged)
    local found, count, seen = {}, 0, false
    while off < #s do
        local start = off
        local kind = octet(s, off)
        if kind == 0 then
            while off < #s and octet(s, off) == 0 do
                off = off + 1
            end
            found[#found + 1] = { start = start, stop = off, padding = true }
        else
            local long = kind == 50
            local data = off + (long and 4 or 2)
            if data > #s then
                return found, "ext_overrun", start
            end
            local stop = data + (long and number16(s, off + 2) or octet(s, off + 1))
            if stop > #s then
                return found, "ext_overrun", start
            end
            count = count + 1
            if count > MAX_EXTENSIONS then
                return found, "too_many_extensions", start
            end
            local one = { start = start, stop = stop, kind = kind, length = stop - data }
            if long then
                one.subtype = octet(s, off + 1)
            elseif WITH_SUBTYPE[kind] and data < stop then
                one.subtype = octet(s, data)
                data = data + 1
            end
            one.data = data
            one.key = one.subtype and kind .. "/" .. one.subtype or tostring(kind)
            if EXTENSIONS[one.key] == nil and kind < 128 then
                return found, "unknown_nonskippable", start
            end
            local minimum = AUTHENTICATOR_MINIMUM[one.key]
            if judged and minimum and not seen then
                if stop - start < minimum then
                    return found, "auth_ext_length", start
                end
                seen = true
            end
            found[#found + 1] = one
            off = stop
        end
    end
    return found
end

local function framing(m, tree, one)
    tree:add(f.ext_type, m.tvb(one.start, 1))
    if one.kind == 50 then
        tree:add(f.ext_subtype, m.tvb(one.start + 1, 1))
        tree:add(f.ext_length, m.tvb(one.start + 2, 2))
        return
    end
    tree:add(f.ext_length, m.tvb(one.start + 1, 1))
    if one.subtype then
        tree:add(f.ext_subtype, m.tvb(one.start + 2, 1))
    end
end

local function opaque(m, tree, one)
    if one.stop > one.data then
        tree:add(f.ext_data, m.tvb(one.data, one.stop - one.data))
    end
end

-- Adds an extension that the authenticator protects.
local function add_protected(m, tree, one, taken)
    local reader = READERS[one.key]
    local reason
    if one.kind == 50 and m.type ~= 3 then
        reason = "advertisement_not_in_reply"
    elseif reader and taken[one.key] and not SEVERAL_ALLOWED[one.key] then
        reason = "duplicate_extension"
    elseif reader then
        reason = reader(m, tree, one.data, one.stop)
        taken[one.key] = taken[one.key] or reason == nil
    end
    if reader == nil or reason == "reserved_3" then
        opaque(m, tree, one)
        tree:add(f.skipped, m.tvb(one.start, one.stop - one.start), true):set_generated()
    elseif reason then
        opaque(m, tree, one)
        local item = tree:add(f.bad, m.tvb(one.start, one.stop - one.start), reason)
        item:set_generated()
        item:add_proto_expert_info(e.bad, "bad extension: " .. reason)
    end
end

local function add_unprotected(m, tree, one)
    opaque(m, tree, one)
    local item = tree:add(f.unprotected, m.tvb(one.start, one.stop - one.start), true)
    item:set_generated()
    item:add_proto_expert_info(e.unprotected)
end

local function add_extensions(m, tree, found)
    local authenticator
    for _, one in ipairs(found) do
        if authenticator == nil and AUTHENTICATORS[one.key or ""] and m.judged then
            authenticator = one
        end
    end
    local taken, after = {}, authenticator == nil
    for _, one in ipairs(found) do
        local range = m.tvb(one.start, one.stop - one.start)
        if one.padding then
            tree:add(f.padding, range)
        else
            local title = (EXTENSIONS[one.key] or "Extension") .. " (" .. one.key .. ")"
            local branch = tree:add(haaro, range, title)
            framing(m, branch, one)
            if one == authenticator then
                AUTHENTICATORS[one.key](m, branch, one.start, one.stop)
                after = true
            elseif after then
                add_unprotected(m, branch, one)
            else
                add_protected(m, branch, one, taken)
            end
        end
    end
end

-- --- fixed parts -------------------------------------------------------------------------------------

local function add_identification(m, tree, off)
    local item = tree:add(f.ident, m.tvb(off, 8))
    local seconds, fraction = number32(m.s, off), number32(m.s, off + 4)
    -- A timestamp whose first bit is clear is of the era that begins in 2036.
    local era = seconds < 2147483648 and 4294967296 or 0
    local time = NSTime.new(seconds + era - NTP_TO_UNIX, math.floor(fraction * 1000000000 / 4294967296))
    item:add(f.ident_time, m.tvb(off, 8), time):set_generated()
end

local function registration_request(m, tree)
    local flags = tree:add(f.flags, m.tvb(1, 1))
    for _, field in ipairs({ f.flag_s, f.flag_b, f.flag_d, f.flag_m, f.flag_g, f.flag_r, f.flag_t,
        f.flag_x }) do
        flags:add(field, m.tvb(1, 1))
    end
    tree:add(f.lifetime, m.tvb(2, 2))
    tree:add(f.hoa, m.tvb(4, 4))
    tree:add(f.ha, m.tvb(8, 4))
    tree:add(f.coa, m.tvb(12, 4))
    add_identification(m, tree, 16)
    return string.format("HoA=%s CoA=%s Lifetime=%d", dotted(number32(m.s, 4)),
        dotted(number32(m.s, 12)), number16(m.s, 2))
end

local function registration_reply(m, tree)
    tree:add(f.code, m.tvb(1, 1))
    tree:add(f.lifetime, m.tvb(2, 2))
    tree:add(f.hoa, m.tvb(4, 4))
    tree:add(f.ha, m.tvb(8, 4))
    add_identification(m, tree, 12)
    local code = octet(m.s, 1)
    return string.format("HoA=%s Code=%d (%s) Lifetime=%d", dotted(number32(m.s, 4)), code,
        REPLY_CODES[code] or "not assigned", number16(m.s, 2))
end

local function revocation(m, tree)
    tree:add(f.rev_a, m.tvb(2, 2))
    tree:add(f.rev_i, m.tvb(2, 2))
    tree:add(f.hoa, m.tvb(4, 4))
    tree:add(f.home_domain, m.tvb(8, 4))
    tree:add(f.foreign_domain, m.tvb(12, 4))
    tree:add(f.rev_id, m.tvb(16, 4))
    return "HoA=" .. dotted(number32(m.s, 4))
end

local function revocation_ack(m, tree)
    tree:add(f.rev_ack_i, m.tvb(2, 2))
    tree:add(f.hoa, m.tvb(4, 4))
    tree:add(f.rev_id, m.tvb(8, 4))
    return "HoA=" .. dotted(number32(m.s, 4))
end

local function test_init(m, tree)
    tree:add(f.reserved, m.tvb(1, 1))
    tree:add(f.cookie, m.tvb(2, 8))
    return ""
end

local function test(m, tree)
    tree:add(f.reserved, m.tvb(1, 1))
    tree:add(f.nonce_index, m.tvb(2, 2))
    tree:add(f.cookie, m.tvb(4, 8))
    tree:add(f.token, m.tvb(12, 8))
    return "Nonce Index=" .. number16(m.s, 2)
end

local BODIES = { [1] = registration_request, [3] = registration_reply, [7] = revocation,
    [15] = revocation_ack, [24] = test_init, [25] = test_init, [26] = test, [27] = test }

-- --- the message -------------------------------------------------------------------------------------

local function discard(m, tree, reason, at)
    local item = tree:add(f.discard, m.tvb(), reason)
    item:set_generated()
    item:add(f.stopped_at, m.tvb(), at):set_generated()
    item:add_proto_expert_info(e.discard, "dropped by a receiver: " .. reason .. " at octet " .. at)
end

local function tunnel_data(m, tree, pinfo, root)
    tree:add(f.next_header, m.tvb(1, 1))
    tree:add(f.reserved, m.tvb(2, 2))
    tree:set_len(4)
    if #m.s > 4 then
        local inner = m.tvb(4):tvb()
        if DissectorTable.get("ip.proto"):try(octet(m.s, 1), inner, pinfo, root) == 0 then
            Dissector.get("data"):call(inner, pinfo, root)
        end
    end
end

function haaro.dissector(tvb, pinfo, root)
    if haaro.prefs.also_mip then
        -- It gives up on much that is right here, by an error.
        pcall(function() Dissector.get("mip"):call(tvb, pinfo, root) end)
    end
    local m = { tvb = tvb, s = tvb:raw(), judged = true }
    if #m.s == 0 then
        return 0
    end
    m.type = octet(m.s, 0)
    m.judged = m.type < 24
    local name = MESSAGES[m.type] or "Unknown message type " .. m.type
    pinfo.cols.protocol = "HAARO"
    pinfo.cols.info = name
    local tree = root:add(haaro, tvb(), "Mobile IPv4, " .. name)
    tree:add(f.type, tvb(0, 1))
    local fixed = FIXED[m.type]
    local whole = #m.s >= tvb:reported_len()
    if fixed == nil then
        discard(m, tree, "unknown_type", 0)
    elseif #m.s < fixed then
        discard(m, tree, whole and "message_truncated" or "captured_short", #m.s)
    elseif m.type == 4 then
        tunnel_data(m, tree, pinfo, root)
    else
        local info = BODIES[m.type](m, tree)
        if info ~= "" then
            pinfo.cols.info = name .. ", " .. info
        end
        local found, reason, at = walk(m.s, fixed, m.judged)
        add_extensions(m, tree, found)
        if not whole then
            discard(m, tree, "captured_short", #m.s)
        elseif reason then
            discard(m, tree, reason, at)
        end
    end
    return #m.s
end

DissectorTable.get("udp.port"):add(PORT, haaro)
