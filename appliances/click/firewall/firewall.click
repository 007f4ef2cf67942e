// A packet filter without memory: each packet is judged by itself, by the first rule that matches it. Answers are let in
// by their ports and, for TCP, their ACK flag.

define($LAN 10.0.0.0/8)

to_lan :: ToDevice(lan);
to_wan :: ToDevice(wan);
denied :: Counter -> Discard;

FromDevice(lan)
    -> CheckIPHeader(14)
    -> out :: IPFilter(
        1 not src net $LAN,                                  // not our address: nobody could answer
        1 dst net 127.0.0.0/8 or dst net 169.254.0.0/16,
        0 icmp type echo or icmp type unreachable,
        0 udp and (dst port 53 or 123),
        0 tcp and (dst port 22 or 53 or 80 or 443 or 5201),
        0 tcp and (src port 22 or 80 or 443) and tcp opt ack,  // what our servers answer
        1 all)
    -> passed_out :: Counter
    -> to_wan;
out[1] -> denied;

FromDevice(wan)
    -> CheckIPHeader(14)
    -> in :: IPFilter(
        1 src net $LAN,                                      // our own address from outside: a lie
        1 not dst net $LAN,
        0 icmp type echo-reply or icmp type unreachable or icmp type timeexceeded,
        0 udp and (src port 53 or 123),
        0 tcp and (src port 22 or 53 or 80 or 443 or 5201) and tcp opt ack,
        0 tcp and (dst port 22 or 80 or 443),
        1 all)
    -> passed_in :: Counter
    -> to_lan;
in[1] -> denied;
