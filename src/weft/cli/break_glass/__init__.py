"""Taking weft's packet rules away in an emergency, without anything of weft's that may be broken.

`rules` finds and removes the tables and shuts pods' links; `keepers` finds who would put the rules
back, and ends them; `command` is the conversation. Neither settings, journal nor store is opened,
and no socket of the agent's is called: systemd would start one.
"""
