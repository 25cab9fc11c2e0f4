"""The roof: composition, the loop, and everything that needs tasks, retries or the time.

`service` wires the rooms together; `server` hears launchers and the command line; `verbs` answers
CNI; `attach`, `detach` and `recovery` are the journeys; `journal` remembers them.
"""
