"""Autoregressive models: each entry, pixel or token given those before it."""
