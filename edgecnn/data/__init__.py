"""Images: safe decoding, preprocessing, and the photographs that travel with the package."""
