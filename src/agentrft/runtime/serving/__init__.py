"""Serving: an engine process of its own that plays any model for chat, and the client that starts and asks it.

`wire` is what both speak, `client` needs no torch; everything else runs in the process (`python -m …serving`).
"""
