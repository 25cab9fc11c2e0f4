"""Meaning to the rows of one backend: nftables today.

`ruleset` says what every node holds whether or not it has pods, `guards` what one attachment adds
to its sets, `ingress` what is asked of a packet that comes out of a pod. All pure: rows come back,
the drivers make them true. docs/reference/packet-path.md draws the way of a packet.
"""
