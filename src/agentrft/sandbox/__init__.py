"""Untrusted Python in a process that can do nothing but compute; docs/sandbox.md says what that stops and what not.

`process` is what others use: a `ForkServer`, its `Program` and `Outcome`. Below it, one idea a file:

    choice      which sandbox code gets on this machine
    process     our side: starts a worker, sends calls, takes answers as data
    start       how a worker starts, and what it says of itself
    layers      the names of all layers, and the rule by which they are enough
    worker      the warm interpreter that forks a child for every call
    jail        the order in which the worker shuts itself in
      namespaces  a world of its own with a read-only root      landlock  reading named files only
    child       what a forked child does: confine itself, run the code, answer
      limits      what it may use up                            seccomp   the system calls it may make
    probe       forbidden things tried at start
    monty       the child that hands the code to Monty      gaps       what of Python Monty lacks for it
    run_code    a second child for code that the model wrote
    libc        system calls that Python lacks
"""
