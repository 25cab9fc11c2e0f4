"""Traffic that goes on while something is done to a node, counted to the last packet.

    datagrams   numbered UDP, echoed: what was lost on the way, and how long the longest silence was
    streams     TCP with a pattern of bytes, echoed: resets, stalls, wrong bytes
    forgeries   frames that must not arrive, beside honest ones that must, heard at interfaces

One process for all of it (`__main__`), whose sockets live in the pods' namespaces: it is started
and asked by `running`, stops by itself after a time, and answers with a report (`reports`).
"""
