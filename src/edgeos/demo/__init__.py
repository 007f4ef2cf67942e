"""The demo: many clients through featherweight processes of their own, one blocked, one hostile, the others unharmed.

python -m edgeos.demo [--mode auto|root|userns|pcap]
"""
