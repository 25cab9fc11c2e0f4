"""The conformance kit: black-box tests of the CNI protocol for any plugin or chain.

`case` says what a test is, `station` what it works with, one file a group holds the tests
themselves, `groups` lists the groups, `run` builds a node and carries the tests out, `report`
prints. A further group is one file and one line in `groups`. For people: docs/conformance.md.
"""
