"""The predictions of a whole grid at once, where what its candidates share need be computed only once."""
