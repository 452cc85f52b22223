"""What integrations share that speak HTTP."""
