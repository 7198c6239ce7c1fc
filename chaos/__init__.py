"""Chaos: a real mesh under random faults, and an oracle that says what got lost or out of order."""
