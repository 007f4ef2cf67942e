// A gateway that hides a network behind one address (NAPT): TCP, UDP, pings, and ICMP errors about all of them.

define($LAN_IP 192.168.1.1, $LAN_NET 192.168.1.0/24, $LAN_ETH 02:00:00:00:01:01,
       $WAN_IP 203.0.113.2, $WAN_NET 203.0.113.0/24, $WAN_ETH 02:00:00:00:02:01, $GATEWAY 203.0.113.1)

// From a device: output 0 gives IP packets, 1 answers to ARP requests, 2 answers to our own.
elementclass Arriving { $ip, $eth |
    input -> HostEtherFilter($eth)
          -> kind :: Classifier(12/0806 20/0001, 12/0806 20/0002, 12/0800, -);
    kind[0] -> ARPResponder($ip $eth) -> [1] output;
    kind[1] -> [2] output;
    kind[2] -> Strip(14) -> CheckIPHeader -> output;
    kind[3] -> Discard;
}

from_lan :: Arriving($LAN_IP, $LAN_ETH);
from_wan :: Arriving($WAN_IP, $WAN_ETH);
to_lan :: ToDevice(lan);
to_wan :: ToDevice(wan);
lan_arp :: ARPQuerier($LAN_IP, $LAN_ETH);
wan_arp :: ARPQuerier($WAN_IP, $WAN_ETH);
refused :: Counter -> Discard;

flows :: IPRewriter(pattern $WAN_IP 1024-65535 - - 0 1, drop);
pings :: ICMPPingRewriter(pattern $WAN_IP 0-65535 - - 0 1, drop);
errors_in :: ICMPRewriter(flows pings);
errors_out :: ICMPRewriter(flows pings);

// Outward: the time to live counts down before addresses change, so that an error about it names the client's own packet.
FromDevice(lan) -> from_lan
    -> lan_kind :: IPClassifier(dst host $LAN_IP and icmp type echo,
                                dst host $LAN_IP or dst host $WAN_IP or not src net $LAN_NET,
                                -);
lan_kind[0] -> ICMPPingResponder -> lan_arp;
lan_kind[1] -> refused;
lan_kind[2] -> lan_ttl :: DecIPTTL -> outward :: IPClassifier(tcp or udp, icmp type echo, icmp, -);
lan_ttl[1] -> ICMPError($LAN_IP, timeexceeded) -> lan_arp;
outward[0] -> [0] flows;
outward[1] -> [0] pings;
outward[2] -> errors_out;
outward[3] -> refused;

flows[0] -> next_hop :: StaticIPLookup($WAN_NET 0, 0.0.0.0/0 $GATEWAY 0) -> wan_arp -> to_wan;
pings[0] -> next_hop;
errors_out -> next_hop;

// Inward: what belongs to a mapping, and pings for the gateway itself.
FromDevice(wan) -> from_wan
    -> wan_kind :: IPClassifier(not dst host $WAN_IP, icmp type echo, -);
wan_kind[0] -> refused;
wan_kind[1] -> ICMPPingResponder -> next_hop;
wan_kind[2] -> wan_ttl :: DecIPTTL -> inward :: IPClassifier(tcp or udp, icmp type echo-reply, icmp, -);
wan_ttl[1] -> ICMPError($WAN_IP, timeexceeded) -> next_hop;
inward[0] -> [1] flows;
inward[1] -> [1] pings;
inward[2] -> errors_in;
inward[3] -> refused;

flows[1] -> lan_arp -> to_lan;
pings[1] -> lan_arp;
errors_in -> lan_arp;

from_lan[1] -> to_lan;
from_wan[1] -> to_wan;
from_lan[2] -> [1] lan_arp;
from_wan[2] -> [1] wan_arp;
