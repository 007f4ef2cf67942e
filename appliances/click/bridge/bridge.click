// A wire: what comes in on one side leaves on the other. Each client's packets and bytes are counted.

FromDevice(lan) -> forth :: Counter -> ToDevice(wan);
FromDevice(wan) -> back :: Counter -> ToDevice(lan);
