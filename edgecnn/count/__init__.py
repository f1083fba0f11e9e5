"""Instructions of one inference on an Arm core that is emulated: a figure for gates, never a time."""
