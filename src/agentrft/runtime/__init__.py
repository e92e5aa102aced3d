"""Where jobs run (`local`: in this process), and what the machine is (`machine`)."""
