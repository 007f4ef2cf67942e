// A rate limit for each client and direction: bursts wait in a queue, and what does not fit in there is dropped.

define($UP 125kBps, $DOWN 250kBps, $QUEUE 100)

FromDevice(lan) -> up_queue :: Queue($QUEUE) -> up :: BandwidthShaper($UP) -> to_wan :: ToDevice(wan);
FromDevice(wan) -> down_queue :: Queue($QUEUE) -> down :: BandwidthShaper($DOWN) -> to_lan :: ToDevice(lan);
