"""What `./dev up` does to a machine, what it shows there, and how `./dev down` takes it back.

    record     one line a thing, written before the thing is made; read backwards by `down`
    places     where everything goes
    service    the agent, kept by systemd or by deploy/weft-supervise
    containers two network namespaces, attached by executing the launcher as a runtime does
    outside    a third namespace behind a veth pair, which knows no way back to containers
    probe      one TCP and one UDP exchange, and who the other side saw
    up, down   the story, in order

Apart from `lab` proper because it works on the machine itself, not on a lab node. Everything it
makes is named in deploy/footprint, and a test compares the two.
"""
