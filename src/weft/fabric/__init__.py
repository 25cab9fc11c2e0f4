"""Who reaches whom, and how: the wiring of a pod to its node; ways between nodes come later.

Pure: attachments and facts about the node in, rows out.
"""
