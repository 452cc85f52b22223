"""A small receiver of webhooks for the demonstration and for tests; it listens on this machine only.

It checks both signatures, recognises batches and readings it has had before, and counts. It keeps nothing.
"""
