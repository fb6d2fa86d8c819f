"""Inference methods, one a file."""
