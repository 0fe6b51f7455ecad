"""A BitLoot-shaped shop on embedded servers: schema, traffic, fake providers."""
