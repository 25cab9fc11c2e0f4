"""What a node can hold: typed rows with a key, and the change from one state to another.

Rows have no behaviour and know no socket: the thinking wing returns them, the drivers make them
true. Two rows with the same key describe the same kernel object; rows that compare equal need no
change. Addresses are packed bytes (4 or 16), because that is what both sides of the house need.
"""
