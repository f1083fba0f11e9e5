"""The converters that edgecnn is compared with: their environments, and the scripts that run in them."""
