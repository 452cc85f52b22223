"""HTTP: readings in, and what the gateway says of itself."""
