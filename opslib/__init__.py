"""Ground floor: settings, clients, the contract with the application; knows nothing above it."""
