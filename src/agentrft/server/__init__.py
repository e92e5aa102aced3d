"""The HTTP server: OpenAI's fine-tuning API, and ours under the same conventions, on durable jobs."""
