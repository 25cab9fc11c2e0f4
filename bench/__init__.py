"""The figures of weft, each beside its peer, its floor and its target: `./dev bench [NAME...]`.

Every comparison is interleaved (A B, B A, A B ...) in rounds, its ratio comes with a bootstrap
interval, and an A/A run before it says how far two equal things differ on this machine today.
A run fails on a broken function, never on a time. Nothing touches the machine's own network.

    __main__   the command line          catalogue   names -> benchmarks
    figures    statistics, pure          lines       what is reported: table and JSON
    scene      nodes, agents, workers    worker      a process that lives inside a node
    execution  exec as a runtime does    network     a configuration list as libcni runs it
    floor      ready-made messages       sides       what is measured: weft, the chain, the floor
"""
