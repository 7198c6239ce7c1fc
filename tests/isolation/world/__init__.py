"""A world of many tenants with a secret each, and of attackers among them who try everything."""
