"""Pure functions that sign what leaves and check what arrives."""
