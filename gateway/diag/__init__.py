"""A support bundle: what somebody else needs to find a fault, and no secret."""
