"""Cures for a potential that leaves its training data, composed of the floors below; none has a loop of its own."""
