"""agentrft: diagnose, optimise and reinforcement-fine-tune tool-using LLM agents."""

__version__ = "0.1.0"
