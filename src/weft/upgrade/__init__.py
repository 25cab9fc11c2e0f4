"""`weft upgrade`: one release of weft takes the place of another on this node, or goes back.

    release     what a release is, and what it can read
    found       what lies on the node: formats of journal, store, queue and links
    keeper      who keeps the agent running, and has it start again
    preflight   may this release take over? asked before anything is touched
    record      where an upgrade stands, on disk, so that one that was killed is finished or undone
    units       systemd's units of a release, and which of them an upgrade changes
    refit       the step that changes them
    course      the steps, forwards and back

Rules: traffic never depends on it (what the kernel holds stays); there is never a moment without
a launcher or without a link to a program; the agent is only ever ended under a keeper that starts
it again, so that a kill of the upgrade leaves a node with an agent.
"""
