"""FACTS: GPUs, models, clusters, prices, fingerprints and predictors, and the store that keeps them.

Facts are rows and records, not code: a new GPU, price or model is an entry of a YAML file with its source, and a new
measurement is a record that is written once. Nothing here knows what anybody wishes, so facts can be shared between
fleets and checked against physics alone. The catalog imports none of the other packages.
"""
