"""Other people's packet filters on this node: what they do to pods' packets, whose they are, what
would mend it, and which rules to ask them for. Pure; reading is the work of `kernel.nftables` and
`engines`, acting of `engines`, and `agent.firewalls` keeps the clock.
"""
