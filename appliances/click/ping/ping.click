// A host that does nothing but answer ARP requests and pings for its address.

define($IP 10.0.0.1, $ETH 02:00:00:00:01:01)

to_lan :: ToDevice(lan);

FromDevice(lan)
    -> HostEtherFilter($ETH)
    -> kind :: Classifier(12/0806 20/0001, 12/0800, -);

kind[0] -> ARPResponder($IP $ETH) -> to_lan;

kind[1]
    -> CheckIPHeader(14)
    -> echo :: IPClassifier(dst host $IP and icmp type echo, -)
    -> ICMPPingResponder
    -> EtherMirror
    -> answered :: Counter
    -> to_lan;

kind[2] -> other :: Counter -> Discard;
echo[1] -> other;
