"""`weft support`: everything that a bug report needs in one archive, and no secret.

`command` is the door, `parts` the table of what is collected, `redaction` what may stay in it.
"""
