// Every element class, strung together for the fuzzer (fuzz_click.c) and for tests/click/test_click_everything.py.
// What comes in at a device goes through one family, and most of it on to the device before or behind.

out :: Counter -> all :: Queue(40) -> ToDevice(0);

// Classification.
FromDevice(0) -> MarkIPHeader(14) -> Print(a, 40) -> IPPrint(b, CONTENTS HEX) -> classes :: Classifier(12/0806, 12/0800 34/4?, -);
classes[0] -> hash :: HashSwitch(3, 30); hash[0] -> out; hash[1] -> turns :: RoundRobinSwitch;
turns[0] -> out; turns[1] -> chance :: RandomSwitch; chance[0] -> out; chance[1] -> Discard;
classes[1] -> ip :: IPClassifier(tcp opt syn and win > 5, udp dst port 1-99, icmp type echo, ip[20:4] & 0xff0000 = 7, -);
ip[0], ip[1], ip[2], ip[3], ip[4] => out, out, out, out, filter;
filter :: IPFilter(allow src net 10.0.0.0/8 or ether src host 2:0:0:0:0:1, 1 ip frag, 1 src port 1-9, deny ip ttl < 3, 0 all);
filter[0], filter[1] => out, out;
classes[2] -> Paint(3) -> tee :: PaintTee(3) -> colour :: CheckPaint(3) -> paints :: PaintSwitch; tee[1] -> out; colour[1] -> out;
paints[0], paints[1], paints[2] => Idle, Idle, Idle; paints[3] -> way :: Switch(0); way[0], way[1] => out, out;

// Ethernet and ARP.
FromDevice(1) -> here :: HostEtherFilter(00:11:22:33:44:55, OFFSET 0) -> DropBroadcasts -> VLANDecap -> EtherMirror
    -> responder :: ARPResponder(10.0.0.0/8 1:2:3:4:5:6) -> out; here[1] -> [1] querier; responder[1] -> Strip(14)
    -> GetIPAddress(16) -> [0] querier :: ARPQuerier(10.0.0.1/24, 00:11:22:33:44:55, CAPACITY 5, ENTRY_CAPACITY 8)
    -> out; querier[1] -> out;
FromDevice(2) -> MarkIPHeader(14) -> StripToNetworkHeader -> tags :: Tee -> EtherVLANEncap(0x0800, 1:1:1:1:1:1, 2:2:2:2:2:2, ANNO)
    -> EtherEncap(0x88, 1:1:1:1:1:1, 2:2:2:2:2:2) -> Unstrip(3) -> out; tags[1] -> CheckLength(90) -> Null -> out;

// A router, in its parts.
FromDevice(3) -> Paint(1) -> Strip(14) -> check :: CheckIPHeader(INTERFACES 10.0.0.1/24, DETAILS true) -> GetIPAddress(IP dst)
    -> routes :: RadixIPLookup(10.0.0.0/8 0, 10.1.0.0/16 10.0.0.2 1, 0/0 2); check[1] -> out;
routes[0] -> options :: IPGWOptions(10.0.0.1, 10.0.0.2) -> FixIPSrc(10.0.0.1) -> ttl :: DecIPTTL -> cut :: IPFragmenter(100) -> out;
options[1] -> ICMPError(10.0.0.1, parameterproblem) -> errors :: SetIPChecksum -> out; ttl[1] -> ICMPError(10.0.0.1, timeexceeded)
    -> errors; cut[1] -> ICMPError(10.0.0.1, unreachable, needfrag) -> errors;
routes[1] -> ping :: ICMPPingResponder -> out; ping[1] -> IPMirror -> SetIPDSCP(9) -> SetIPAddress(10.0.0.9) -> static;
static :: StaticIPLookup(10.0.0.0/8 0, 11.0.0.0/8 0, 12.0.0.0/8 0, 13.0.0.0/8 0, 14.0.0.0/8 0, 15.0.0.0/8 0, 16.0.0.0/8 0,
    17.0.0.0/8 0, 18.0.0.0/8 0, 0/0 0) -> out;
routes[2] -> linear :: LinearIPLookup(0/0 10.0.0.1 0) -> ICMPError(10.0.0.1, redirect, host, MTU 100) -> out;
FromDevice(4) -> IPInputCombo(2, INTERFACES 10.0.0.1/24) -> combo :: IPOutputCombo(2, 10.0.0.1, 90);
combo[0], combo[1], combo[2], combo[3], combo[4] => out, out, out, out, out;

// Headers of other kinds.
FromDevice(5) -> second :: CheckIPHeader2(14) -> Strip(14) -> udp :: CheckUDPHeader(DETAILS true) -> sums :: SetUDPChecksum -> out;
second[1] -> out; sums[1] -> out; udp[1] -> tcp :: CheckTCPHeader -> SetTCPChecksum(FIXOFF true) -> out; tcp[1] -> icmp :: CheckICMPHeader
    -> out; icmp[1] -> UDPIPEncap(1.1.1.1, 1, DST_ANNO, 2) -> IPEncap(4, 1.1.1.1, 2.2.2.2) -> out;

// Translation.
FromDevice(6) -> MarkIPHeader(14) -> pings :: ICMPPingRewriter(pattern 203.0.113.1 1-9 - - 0 1, pass 1); FromDevice(7)
    -> MarkIPHeader(14) -> [1] pings;
pings[0] -> nat :: IPRewriter(pattern 203.0.113.1 1-9 - - 0 1, keep 0 1, lb, MAPPING_CAPACITY 6, UDP_TIMEOUT 1);
pings[1] -> quoted :: ICMPRewriter(nat pings hosts t u); quoted[0] -> [1] nat; quoted[1] -> [2] nat;
nat[0] -> hosts :: IPAddrRewriter(pattern 203.0.113.0/29 - 0 1, keep 0 1, MAPPING_CAPACITY 3) -> out; nat[1] -> [1] hosts; hosts[1] -> out;
lb :: RoundRobinIPMapper(- - 192.0.2.1 - 0 1, - - 192.0.2.2 80 0 1);
FromDevice(8) -> MarkIPHeader(14) -> t :: TCPRewriter(sticky, MAPPING_CAPACITY 4) -> u :: UDPRewriter(pass) -> out; t[1] -> out;
sticky :: SourceIPHashMapper(9 1, - - 192.0.2.1 - 0 1 1, - - 192.0.2.2 - 0 1 2);

// Rates, and packets of its own.
FromDevice(9) -> MarkIPHeader(14) -> IPRateMonitor(BYTES, 0.5, 10, 100) -> AverageCounter -> meter :: Meter(50, 90);
meter[0] -> SimpleQueue(5) -> Shaper(50) -> Unqueue(-1) -> out;
meter[1] -> FrontDropQueue(4) -> BandwidthShaper(5kBps) -> RatedUnqueue(20) -> out;
meter[2] -> bytes :: BandwidthMeter(1000) -> Queue(6) -> BandwidthRatedUnqueue(4kBps) -> out; bytes[1] -> out;
InfiniteSource(x, 7, 2) -> out; RatedSource(RATE 3, LENGTH 60) -> out; TimedSource(0.2, LIMIT 9) -> out;

// Bytes.
FromRing(10) -> MarkIPHeader(14) -> search :: Search(evil, "\<00 00>", ab) -> Align(8, 3) -> Truncate(200) -> StoreData(20, 0123456789)
    -> ToRing(0); search[1] -> Search(PAYLOAD false, NOCASE true, abc) -> out;
