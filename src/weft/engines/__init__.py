"""Well-kept programs of the host that we ask or configure, one file each. They perform what they
are told; what to ask for is worked out in the thinking wing.
"""
