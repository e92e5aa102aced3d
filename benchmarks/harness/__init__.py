"""What every benchmark shares: workers in processes of their own, prompts, the result table, the machine's description.

`pipe` and `prompts` import only the standard library: they also run inside the peers' environments.
"""
