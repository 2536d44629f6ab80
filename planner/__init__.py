"""WISHES, OPTIONS, DECISIONS: pure functions from intents and facts to a plan."""
