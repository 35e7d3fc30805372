"""How the weights come about: losses, stages, and the loop."""
