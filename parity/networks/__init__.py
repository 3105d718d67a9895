"""One vocabulary of networks, and what every backend that computes them must offer."""
