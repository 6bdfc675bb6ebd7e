"""The clock and everything that is read beside it; knows models by their contract only."""
