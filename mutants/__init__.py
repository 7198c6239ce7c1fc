"""Small wrong changes to the code that keeps tenants apart; the tests must notice each one."""
