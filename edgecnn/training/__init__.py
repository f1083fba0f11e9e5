"""Training of image classifiers: from scratch, from a checkpoint, from a teacher."""
