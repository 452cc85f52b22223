"""Boards: what is put on them, and how."""
