"""The crash sweep: every verb, stopped or failed at each system call that has an effect.

    effects     which system calls count as an effect, and why
    faults      what is done at one: a kill, or an errno, once or for good
    tracing     strace around the launcher or on the living agent: points found, faults injected
    newcomers   strace on threads that begin; held      an agent that lets them wait for it
    stage       a lab node with agent and bystander pods, and how it is looked at
    bystanders  datagrams among the bystanders, which must not be lost
    verbs       what stands before a verb, and what the verb is
    strike      a verb with one fault in it; program   the same for an agent's start and commands
    aftermath   what comes after the fault - DEL, ADD, GC, a new agent - and what must be true then
    returned    likewise after a command that works on a node without an agent
    dumps       the quick look at a kernel, which tells that nothing has changed
    plan        what is asked, and what comes of it
    player      one stage and its trials; crew    several at once
    sweep       all points of all verbs; report    a table for people, JSON for programs

`weft lab crash-sweep` comes here; docs/crash-safety.md says what is promised.
"""
