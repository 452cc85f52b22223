"""Nothing before main.py: what fails here cannot be mended over the air."""
