"""Networks with a density: torch modules and Pyro transforms, which know no estimator."""
