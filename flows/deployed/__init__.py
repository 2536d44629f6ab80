"""Prefect flows beside the nights: `probe` a model, `fit` and show what predictions rest on, `whatif`, `publish`.

Each is a form, one call of the library, and artifacts. Their entrypoints stand in prefect.yaml.
"""
