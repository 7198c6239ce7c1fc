"""The workers that ship with Tenantry, each started by `tenantry run NAME`."""
