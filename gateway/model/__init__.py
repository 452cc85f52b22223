"""Pure data types that every other room may use."""
