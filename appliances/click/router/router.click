// An IPv4 router with two interfaces, by RFC 1812: ARP, checks, routes, IP options, time to live, fragments, and ICMP
// errors about what cannot go on.

define($LAN_IP 10.1.0.1, $LAN 10.1.0.1/24, $LAN_ALL 10.1.0.255, $LAN_ETH 02:00:00:00:01:01, $LAN_MTU 1500,
       $WAN_IP 10.2.0.1, $WAN 10.2.0.1/24, $WAN_ALL 10.2.0.255, $WAN_ETH 02:00:00:00:02:01, $WAN_MTU 1500,
       $FAR_NET 10.3.0.0/16, $GATEWAY 10.2.0.2)

// From a device: output 0 gives IP packets fit to be routed, 1 answers to ARP requests, 2 answers to our own.
elementclass Arriving { $color, $ip, $eth |
    input -> HostEtherFilter($eth)
          -> kind :: Classifier(12/0806 20/0001, 12/0806 20/0002, 12/0800, -);
    kind[0] -> ARPResponder($ip $eth) -> [1] output;
    kind[1] -> [2] output;
    kind[2] -> Paint($color)
            -> Strip(14)
            -> CheckIPHeader(INTERFACES $LAN $WAN)
            -> IPFilter(deny src net 127.0.0.0/8 or src net 0.0.0.0/8 or src net 224.0.0.0/3, allow all)
            -> GetIPAddress(16)
            -> output;
    kind[3] -> Discard;
}

// To a device: input 0 takes routed packets, 1 answers to ARP requests; output 0 gives frames, 1 errors to be routed.
elementclass Leaving { $color, $ip, $net, $eth, $mtu |
    arp :: ARPQuerier($ip, $eth);
    input -> DropBroadcasts
          -> back :: PaintTee($color)
          -> options :: IPGWOptions($ip, $LAN_IP $WAN_IP)
          -> FixIPSrc($ip)
          -> ttl :: DecIPTTL
          -> fragments :: IPFragmenter($mtu)
          -> arp
          -> output;
    input[1] -> [1] arp;
    back[1] -> IPFilter(allow src net $net) -> ICMPError($ip, redirect, host) -> [1] output;
    options[1] -> ICMPError($ip, parameterproblem) -> [1] output;
    ttl[1] -> ICMPError($ip, timeexceeded) -> [1] output;
    fragments[1] -> ICMPError($ip, unreachable, needfrag, PMTU $mtu) -> [1] output;
}

routes :: StaticIPLookup(
    $LAN_IP/32 2, $WAN_IP/32 2,
    $LAN_ALL/32 3, $WAN_ALL/32 3, 255.255.255.255/32 3, 0.0.0.0/8 3, 127.0.0.0/8 3, 224.0.0.0/3 3,
    $LAN 0, $WAN 1, $FAR_NET $GATEWAY 1,
    0.0.0.0/0 4);

from_lan :: Arriving(1, $LAN_IP, $LAN_ETH);
from_wan :: Arriving(2, $WAN_IP, $WAN_ETH);
lan :: Leaving(1, $LAN_IP, $LAN, $LAN_ETH, $LAN_MTU);
wan :: Leaving(2, $WAN_IP, $WAN, $WAN_ETH, $WAN_MTU);
to_lan :: ToDevice(lan);
to_wan :: ToDevice(wan);

FromDevice(lan) -> from_lan -> routes;
FromDevice(wan) -> from_wan -> routes;
from_lan[1] -> to_lan;
from_wan[1] -> to_wan;
from_lan[2] -> [1] lan;
from_wan[2] -> [1] wan;
routes[0] -> lan -> to_lan;
routes[1] -> wan -> to_wan;
lan[1] -> routes;
wan[1] -> routes;

// To the router itself: it answers pings, and says that it has nothing else. It puts no fragments together.
routes[2] -> own :: IPClassifier(ip frag, icmp type echo, icmp, tcp or udp, -);
own[0] -> Discard;
own[1] -> ICMPPingResponder -> routes;
own[2] -> Discard;
own[3] -> ICMPError($LAN_IP, unreachable, port) -> routes;
own[4] -> ICMPError($LAN_IP, unreachable, protocol) -> routes;

routes[3] -> Discard;                                             // broadcasts, groups, nobody
routes[4] -> ICMPError($LAN_IP, unreachable, net) -> routes;
