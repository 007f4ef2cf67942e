// Intrusion detection in a wire: payloads of TCP and UDP are searched for the words of a rule file, all at once. What a
// rule drops goes nowhere, what it only alerts of goes on; both are counted by rule.

define($RULES ids.rules)

to_lan :: ToDevice(lan);
to_wan :: ToDevice(wan);
stopped :: Counter -> Discard;

FromDevice(lan) -> CheckIPHeader(14) -> out :: Search(FILE $RULES, NOCASE true) -> to_wan;
FromDevice(wan) -> CheckIPHeader(14) -> in :: Search(FILE $RULES, NOCASE true) -> to_lan;
out[1] -> stopped;
in[1] -> stopped;
