"""The folder an export leaves: written beside its place and renamed, read back with its hashes checked."""
