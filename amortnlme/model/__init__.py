"""Individual models: parameters, dynamics, outputs, error models, priors, and what is computed from them."""
