"""FACTS: GPUs, models, clusters, prices, fingerprints and predictors, and the store that keeps them."""
