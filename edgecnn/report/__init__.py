"""The page that says whether an int8 file can be trusted, and why: one HTML file that opens offline."""
