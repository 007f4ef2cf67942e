"""A node under churn and faults for a while: `make soak SOAK_SECONDS=600`.

After each fault every message must be accounted for, every client must have left and every connection must be closed.
In the end memory and open files must be what they were after the first cycle of faults, and the node must serve as
before.
"""
