"""A process that carries ::1 to containers where the kernel has no hook for it.

    program of the node -- ::1, published port
      packet rules      -- ::1, a port of the relay's own (render.published)
      relay             -- a connection, or a flow of datagrams, of its own to the container

Of Python's library alone and of nothing else of weft: it is started without site-packages, small,
and without any right (`rights`). It keeps no state but its sockets. `program` is where it begins,
`engines.relay` the agent's side, `agent.relaying` keeps it running.
"""
