"""Fetching what is published elsewhere: known by its SHA-256, kept in the cache, never executed."""
