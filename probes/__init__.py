"""MEASUREMENT: runners that time the operators of an engine step."""
