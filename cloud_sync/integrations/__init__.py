"""One file per kind of destination, with its settings and its capabilities (see `cloud_sync.contract`)."""
