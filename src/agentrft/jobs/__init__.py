"""Jobs: what the user asked for (`spec`), whether it can work (`check`), and its life in the store (`service`)."""
