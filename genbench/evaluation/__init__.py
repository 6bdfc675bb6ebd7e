"""Scoring samples: sides in any form, pictures, features, evidence, and the metrics of all of it."""
