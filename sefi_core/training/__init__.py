"""Learning an identity."""
