"""Float graph and calibration images in, one canonical QDQ graph out."""
