"""Tests of the whole, as a user meets it."""
