"""Nodes and pods as namespaces on one machine: for trying things, tests, and the conformance kit.

    nodes, private, calls   a node: its namespaces, its files, commands and functions inside
    entering, wiring        network namespaces and the cables between them
    runtime, invocation     what a container runtime does with a CNI configuration
    cluster, matrix         `weft lab`: nodes with agents, and who reaches whom
    snapshot, truth         what the kernel holds, compared or asked
    probes, ears, frames    honest traffic, listening at a receiver, frames made by hand
    haste                   a process that sends from the first moment of a link
    crash                   every verb killed or failed at each system call with an effect
    conformance             black-box tests for any CNI plugin
    demo                    what `./dev up` shows, on the machine itself

A door, like `cli`: it may use every room, and only `cli` uses it. docs/lab.md is for people.
"""
