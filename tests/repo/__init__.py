"""Tests that read what the repository generates and promises."""
