"""Workers that run our engine; the counterparts of `peers`."""
