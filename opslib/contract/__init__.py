"""The contract with the application: canonical views, our own migrations, one adapter per application."""
