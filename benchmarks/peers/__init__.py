"""Workers that run inside a peer's own environment: standard library, `harness.pipe`, `harness.prompts`, the peer."""
