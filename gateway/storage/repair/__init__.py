"""What becomes of a damaged database: it is noticed, set aside, replaced at once, and what is readable comes back.

`care` decides, `exchange` replaces, `salvage` copies; `wreck`, `sqlite_file` and `wal_file` read what SQLite cannot.
"""
