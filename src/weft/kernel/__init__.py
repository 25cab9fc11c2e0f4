"""The only users of netlink, nfnetlink, setns and sysctl files.

Transports and encoders: thin, typed, and ignorant of weft's own notions. `netlink` is framing and
one socket, `rtnetlink` and `nftables` encode and decode messages, `namespaces` is the one file
that enters another namespace, `sysctl` reads and writes files below /proc/sys.
"""
