"""Everything that leaves the building: forwarding, signing, integrations and the receiving side."""
