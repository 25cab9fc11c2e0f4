"""nfnetlink's nftables subsystem: rows.rules to messages and back, and the socket that sends them.

`messages` is framing and the order of things in a transaction, `datatypes` the types of keys,
`sets`, `elements`, `chains` and `expressions` are one kind of object each, both directions;
`transport` commits transactions and reads our tables back. Nothing here knows what weft's rules
are for. Source: include/uapi/linux/netfilter/nf_tables.h and net/netfilter/nf_tables_api.c,
Linux 5.15 and later.
"""
