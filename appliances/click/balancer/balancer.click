// A load balancer: connections to one address are spread over servers, which lie on the other side and answer through it.
// A client's connections go to the same server.

define($VIP 10.1.0.100, $LAN_IP 10.1.0.1, $LAN_NET 10.1.0.0/24, $LAN_ETH 02:00:00:00:01:01,
       $WAN_IP 10.2.0.1, $WAN_ETH 02:00:00:00:02:01,
       $SERVER_A 10.2.0.11, $SERVER_B 10.2.0.12, $SERVER_C 10.2.0.13)

// From a device: output 0 gives IP packets, 1 answers to ARP requests, 2 answers to our own.
elementclass Arriving { $addresses, $eth |
    input -> HostEtherFilter($eth)
          -> kind :: Classifier(12/0806 20/0001, 12/0806 20/0002, 12/0800, -);
    kind[0] -> ARPResponder($addresses $eth) -> [1] output;
    kind[1] -> [2] output;
    kind[2] -> Strip(14) -> CheckIPHeader -> output;
    kind[3] -> Discard;
}

from_lan :: Arriving($VIP $LAN_IP, $LAN_ETH);
from_wan :: Arriving($WAN_IP, $WAN_ETH);
to_lan :: ToDevice(lan);
to_wan :: ToDevice(wan);
lan_arp :: ARPQuerier($LAN_IP, $LAN_ETH);
wan_arp :: ARPQuerier($WAN_IP, $WAN_ETH);

servers :: SourceIPHashMapper(64 1,
    - - $SERVER_A - 0 1 1,
    - - $SERVER_B - 0 1 2,
    - - $SERVER_C - 0 1 3);
balance :: IPRewriter(servers, drop);
errors_in :: ICMPRewriter(balance);
errors_out :: ICMPRewriter(balance);
other :: Counter -> Discard;

FromDevice(lan) -> from_lan
    -> service :: IPClassifier(not dst host $VIP, icmp type echo, icmp, tcp or udp, -);
service[0] -> other;
service[1] -> ICMPPingResponder -> lan_arp;
service[2] -> errors_in -> wan_arp;
service[3] -> [0] balance;
service[4] -> other;

FromDevice(wan) -> from_wan -> answers :: IPClassifier(tcp or udp, icmp, -);
answers[0] -> [1] balance;
answers[1] -> errors_out -> lan_arp;
answers[2] -> other;

balance[0] -> DecIPTTL -> wan_arp -> to_wan;
balance[1] -> DecIPTTL -> lan_arp -> to_lan;

from_lan[1] -> to_lan;
from_wan[1] -> to_wan;
from_lan[2] -> [1] lan_arp;
from_wan[2] -> [1] wan_arp;
