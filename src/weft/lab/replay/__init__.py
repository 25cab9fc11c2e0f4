"""Replays of container runtimes: what each of them does with a CNI plugin, and what it makes of it.

A runtime is data (`persona`): where it looks, what it puts into environment and standard input, in
which order it calls, how long it waits. One file a runtime in `runtimes`, one line in `table`; the
forms that several share are in `forms`, what they read out of a result in `reading`. `player` acts
one out against a real plugin, `conduct` gives it a node and judges what is left.
"""
