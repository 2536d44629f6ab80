"""MEASUREMENT: runners that time the operators of an engine step.

Every way to measure (published kernel tables, the device at hand, a real vLLM, a fake) stands behind one port and gives
one noun, a `Fingerprint`. So a laptop without a GPU plans a fleet by the code path that a GPU node uses. Probes know
nothing of planning: what they need of it (a roofline) is handed in.
"""
