"""How often a network is right, on the runtime that will execute it, and how sure that figure is."""
