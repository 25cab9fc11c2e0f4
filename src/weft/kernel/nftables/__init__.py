"""nfnetlink's nftables subsystem: rows.rules to messages and back, and the socket that sends them.

`messages` is framing and the order of things in a transaction, `datatypes` the types of keys,
`tables`, `sets`, `elements`, `chains` and `expressions` are one kind of object each, both
directions; `transport` commits transactions and reads our tables back; `holders` tells whose a
table is. Nothing here knows what weft's rules are for. Source: net/netfilter/nf_tables_api.c and
include/uapi/linux/netfilter/nf_tables.h, Linux 5.15 and later.
"""
