"""ORDER: what happens when, and the command line."""
