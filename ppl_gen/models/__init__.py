"""Generative models, one family a file; each is a scikit-learn estimator."""
